"""The processes of one training: which of them this is, and what they agree on.

They do the same things in the same order. Only the first one writes files; what depends on a file or on a clock, it
decides for all.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_single_process() -> bool:
    """Whether no other process takes part."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def is_rank_zero() -> bool:
    """Whether this is the process that writes files."""
    return is_single_process() or dist.get_rank() == 0


def broadcast(value: T) -> T:
    """The first process's value, in all of them."""
    if is_single_process():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@torch.no_grad()
def all_reduce_mean(value: Tensor) -> Tensor:
    """The mean over all processes, without a gradient."""
    if is_single_process():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class Votes:
    """What any process wants, all of them do: asked on the CPU, so that no accelerator has to wait."""

    def __init__(self) -> None:
        self.group: Any = None if is_single_process() else dist.new_group(backend="gloo")

    def any(self, *wishes: int) -> list[int]:
        """The largest of each wish over all processes; they must all ask."""
        if self.group is None:
            return list(wishes)
        votes = torch.tensor(wishes)
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self.group)
        found: list[int] = votes.tolist()
        return found
