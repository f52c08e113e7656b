"""Which images make which batch, and how they are seen: a pure function of seed, epoch and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from vaegan.config import require
from vaegan.runtime.seeding import generator


@dataclass
class LoaderConfig:
    """How images come to the model."""

    batch_size: int = 128  # images of one step, over all devices together
    eval_batch_size: int = 500  # images per device while validating and testing
    num_workers: int = 0  # loader processes; sets in memory or in a cache are fastest with none
    device_share: float = (
        0.25  # of a GPU's free memory that a split may take, to be held there; 0: none is
    )

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(self.eval_batch_size >= 1, "eval_batch_size", "at least 1", self.eval_batch_size)
        require(self.num_workers >= 0, "num_workers", "at least 0", self.num_workers)
        require(0 <= self.device_share < 1, "device_share", "in [0, 1)", self.device_share)


class BatchIndices(NamedTuple):
    """Which images make a batch, and what is seen of each."""

    indices: Tensor  # int64, (B,)
    draws: Tensor | None = (
        None  # uniform in [0, 1), (B, 3): place and mirroring of each; None: all as they are
    )


class ShuffledBatches(Sampler[BatchIndices]):
    """The picks of each training batch, of (batch_size / world_size) images, in an order that is f(seed, epoch).

    All ranks draw the same global batches, and each takes its share of every one, so that the number of devices does
    not change what a step sees. The last, incomplete batch of an epoch is left out.

    Args:
        is_augmented: Whether an image is seen in another way each time, which is f(seed, epoch, image).
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        is_augmented: bool = False,
    ) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.is_augmented = rank, world_size, is_augmented
        self.epoch, self.num_done = 0, 0

    def resume_at(self, epoch: int, num_done: int) -> None:
        """Begin in an epoch, after so many of its batches."""
        self.epoch, self.num_done = epoch, num_done

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning when an epoch begins, or goes on."""
        if epoch != self.epoch:
            self.resume_at(epoch, 0)

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[BatchIndices]:
        order = torch.randperm(self.num_images, generator=generator(self.seed, "order", self.epoch))
        draws = None
        if self.is_augmented:
            draws = torch.rand(
                self.num_images, 3, generator=generator(self.seed, "views", self.epoch)
            )
        for batch in order[: len(self) * self.batch_size].split(self.batch_size)[self.num_done :]:
            indices = batch[self.rank :: self.world_size]
            yield BatchIndices(indices, None if draws is None else draws[indices])


class SequentialBatches(Sampler[BatchIndices]):
    """The picks of each evaluation batch. Every image is counted once: nothing is padded, whatever the world size."""

    def __init__(
        self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batches = torch.arange(num_images)[rank::world_size].split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndices]:
        return map(BatchIndices, self.batches)
