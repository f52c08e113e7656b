"""Rank queries and collectives for distributed training.

All ranks run the same steps in the same order. Only rank 0 writes to the run folder. Decisions that
depend on the run folder are made by rank 0 and broadcast; decisions that depend on a signal or a
clock are reduced over all ranks (`FlagReducer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def is_single_process() -> bool:
    """True if training runs in one process."""
    return not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1


def is_rank_zero() -> bool:
    """True in the process that writes to the run folder."""
    return is_single_process() or dist.get_rank() == 0


def broadcast(value: T) -> T:
    """Return rank 0's value on every rank."""
    if is_single_process():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def all_gather(value: T) -> list[T]:
    """Return the values of all ranks, by rank; every rank must call it."""
    if is_single_process():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def all_reduce_mean(value: Tensor) -> Tensor:
    """Return the mean over all ranks. Gradients do not flow through it."""
    if is_single_process():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


class FlagReducer:
    """Max-reduce integer flags over ranks on the CPU (gloo), without synchronizing accelerators."""

    def __init__(self) -> None:
        self.group: Any = None if is_single_process() else dist.new_group(backend="gloo")

    def all_reduce_max(self, flags: Sequence[int]) -> list[int]:
        """Return the largest value of each flag over all ranks; every rank must call it."""
        if self.group is None:
            return list(flags)
        reduced = torch.tensor(flags)
        dist.all_reduce(reduced, dist.ReduceOp.MAX, group=self.group)
        return reduced.tolist()
