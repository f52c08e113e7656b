"""Rank of this process in a distributed training, and collectives between the ranks.

All ranks run the same steps in the same order. Only rank 0 writes files; it also decides for all
of them what depends on a file or a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_single_process() -> bool:
    """True if no other process takes part."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def is_rank_zero() -> bool:
    """True in the process that writes files."""
    return is_single_process() or dist.get_rank() == 0


def broadcast(value: T) -> T:
    """Return rank 0's value on every rank."""
    if is_single_process():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@torch.no_grad()
def all_reduce_mean(value: Tensor) -> Tensor:
    """Return the mean over all ranks, without a gradient."""
    if is_single_process():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class FlagReducer:
    """Max-reduce integer flags over ranks on the CPU (gloo), so that no accelerator has to wait."""

    def __init__(self) -> None:
        self.group: Any = None if is_single_process() else dist.new_group(backend="gloo")

    def all_reduce_max(self, flags: Sequence[int]) -> list[int]:
        """Return the largest value of each flag over all ranks; every rank must call it."""
        if self.group is None:
            return list(flags)
        reduced = torch.tensor(flags)
        dist.all_reduce(reduced, dist.ReduceOp.MAX, group=self.group)
        return reduced.tolist()
