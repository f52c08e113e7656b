"""Samplers of batch indices: pure functions of seed, epoch and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from vaegan.config import require
from vaegan.runtime.seeding import make_generator


@dataclass
class LoaderConfig:
    """Batch sizes and data loading."""

    batch_size: int = 128  # images per training step, over all devices together
    eval_batch_size: int = 500  # images per device in validation and test
    num_workers: int = 0  # loader processes; 0 is fastest for data in memory or in a cache
    device_share: float = 0.25  # of a GPU's free memory that a split may take to be kept there

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(self.eval_batch_size >= 1, "eval_batch_size", "at least 1", self.eval_batch_size)
        require(self.num_workers >= 0, "num_workers", "at least 0", self.num_workers)
        require(0 <= self.device_share < 1, "device_share", "in [0, 1)", self.device_share)


class BatchIndices(NamedTuple):
    """Indices of the images of a batch, and the random numbers that crop and mirror them."""

    indices: Tensor  # int64, (B,)
    crop_randoms: Tensor | None = None  # uniform in [0, 1), (B, 3); None: no augmentation


class ShuffledBatches(Sampler[BatchIndices]):
    """Indices of training batches, in an order that is f(seed, epoch).

    All ranks draw the same global batches, and each takes its share of every one, so that a step
    does not depend on the number of devices. The last, incomplete batch of an epoch is dropped.

    Args:
        num_images: Size of the split.
        batch_size: Images of a global batch.
        seed: Seed of the order and of the augmentation.
        rank: Rank of this process.
        world_size: Number of processes.
        is_augmented: True to draw `crop_randoms`, which are f(seed, epoch, image).
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
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.is_augmented = is_augmented
        self.resume_at(epoch=0, batches_done=0)

    def resume_at(self, epoch: int, batches_done: int) -> None:
        """Begin in an epoch, after some of its batches."""
        self.epoch = epoch
        self.batches_done = batches_done

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch. Lightning calls this for a resumed epoch too, which changes nothing."""
        if epoch != self.epoch:
            self.resume_at(epoch, 0)

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[BatchIndices]:
        order = torch.randperm(
            self.num_images, generator=make_generator(self.seed, "order", self.epoch)
        )
        crop_randoms = None
        if self.is_augmented:
            rng = make_generator(self.seed, "views", self.epoch)
            crop_randoms = torch.rand(self.num_images, 3, generator=rng)
        num_used = len(self) * self.batch_size
        batches = order[:num_used].split(self.batch_size)
        for batch in batches[self.batches_done :]:
            indices = batch[self.rank :: self.world_size]
            yield BatchIndices(indices, None if crop_randoms is None else crop_randoms[indices])


class SequentialBatches(Sampler[BatchIndices]):
    """Indices of evaluation batches. Each image occurs once over all ranks: nothing is padded."""

    def __init__(
        self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batches = torch.arange(num_images)[rank::world_size].split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndices]:
        return map(BatchIndices, self.batches)
