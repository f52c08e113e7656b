"""Which images make which batch: a pure function of seed, epoch and rank. A batch is one index operation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from vaegan.config import require
from vaegan.data.datasets import Split
from vaegan.random import generator


@dataclass
class LoaderConfig:
    """How images come to the model."""

    batch_size: int = 128  # images of one step, over all devices together
    eval_batch_size: int = 500  # images per device while validating and testing
    num_workers: int = 0  # loader processes; sets in memory are fastest with none

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        require(self.eval_batch_size >= 1, "eval_batch_size", "at least 1", self.eval_batch_size)
        require(self.num_workers >= 0, "num_workers", "at least 0", self.num_workers)


class ImagesInMemory(Dataset[tuple[Tensor, Tensor]]):
    """A split, indexed by whole batches: `dataset[indices]` is (uint8 images, labels)."""

    def __init__(self, split: Split) -> None:
        self.images, self.labels = split

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices], self.labels[indices]


class ShuffledBatches(Sampler[Tensor]):
    """Indices of each training batch, (batch_size / world_size,), in an order that is f(seed, epoch).

    All ranks draw the same global batches, and each takes its share of every one, so that the number of devices does
    not change what a step sees. The last, incomplete batch of an epoch is left out.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning when an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.num_images, generator=generator(self.seed, "order", self.epoch))
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield batch[self.rank :: self.world_size]


class SequentialBatches(Sampler[Tensor]):
    """Indices of each evaluation batch. Every image is counted once: nothing is padded, whatever the world size."""

    def __init__(self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.batches = torch.arange(num_images)[rank::world_size].split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.batches)
