"""Batch samplers. The order is a pure function of the seed, the epoch and the rank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from vaegan.config import require
from vaegan.runtime.seeding import make_generator

MAX_WORKERS = 256  # data loader processes per device


@dataclass
class LoaderConfig:
    """Batch sizes and data loading."""

    # images per training step, summed over all devices, >= 1; null (VAE only): 32 for natural
    # images, else 128
    batch_size: int | None = None
    eval_batch_size: int = 500  # images per device and step in validation and test, >= 1
    # data loader processes per device, in [0, 256]; 0: load in the main process, which is fastest
    # for data in memory
    num_workers: int = 0
    # maximum fraction of the GPU's free memory that a split may take up to be kept on the GPU, in
    # [0, 1); 0: keep all splits in main memory
    device_share: float = 0.25

    def __post_init__(self) -> None:
        size = self.batch_size
        require(size is None or size >= 1, "batch_size", "at least 1, or null", size)
        require(self.eval_batch_size >= 1, "eval_batch_size", "at least 1", self.eval_batch_size)
        expected = f"in [0, {MAX_WORKERS}]"
        is_valid = 0 <= self.num_workers <= MAX_WORKERS
        require(is_valid, "num_workers", expected, self.num_workers)
        require(0 <= self.device_share < 1, "device_share", "in [0, 1)", self.device_share)

    @property
    def images_per_step(self) -> int:
        """`batch_size` after its default has been filled in."""
        assert self.batch_size is not None, "call resolve_data_defaults first"
        return self.batch_size


class BatchIndices(NamedTuple):
    """Image indices of a batch, with the random numbers for cropping and mirroring."""

    indices: Tensor  # int64, (B,)
    crop_randoms: Tensor | None = None  # uniform in [0, 1), (B, 3); None: no augmentation


class ShuffledBatches(Sampler[BatchIndices]):
    """Sampler of training batches. The order is a function of the seed and the epoch.

    Every rank draws the same global batches and takes its share of each of them, so a training
    step does not depend on the number of devices. The last, incomplete batch of an epoch is
    dropped. If an epoch has fewer images than a batch, images are repeated to fill one batch.

    Args:
        num_images: Number of images in the split.
        batch_size: Images per global batch.
        seed: Random seed of the order and of the augmentation.
        rank: Rank of this process.
        world_size: Number of processes.
        is_augmented: True to draw `crop_randoms`, a function of the seed, the epoch and the image,
            and of the number of the repetition if a batch repeats images.
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
        """Continue an epoch after its first `batches_done` batches."""
        self.epoch = epoch
        self.batches_done = batches_done

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch at its first batch.

        A call for the current epoch has no effect: Lightning makes one for a resumed epoch.
        """
        if epoch != self.epoch:
            self.resume_at(epoch, 0)

    def __len__(self) -> int:
        return max(1, self.num_images // self.batch_size)

    def __iter__(self) -> Iterator[BatchIndices]:
        rng = make_generator(self.seed, "order", self.epoch)
        num_passes = math.ceil(self.batch_size / self.num_images)  # above 1 in a small data set
        passes = [torch.randperm(self.num_images, generator=rng) for _ in range(num_passes)]
        order = torch.cat(passes)
        crop_randoms = None
        if self.is_augmented:
            rng = make_generator(self.seed, "views", self.epoch)
            by_image = [torch.rand(self.num_images, 3, generator=rng) for _ in passes]
            crop_randoms = torch.cat([x[i] for x, i in zip(by_image, passes, strict=True)])
        batches = torch.arange(len(self) * self.batch_size).split(self.batch_size)
        for batch in batches[self.batches_done :]:
            positions = batch[self.rank :: self.world_size]
            augmentation = None if crop_randoms is None else crop_randoms[positions]
            yield BatchIndices(order[positions], augmentation)


class SequentialBatches(Sampler[BatchIndices]):
    """Sampler of evaluation batches, without padding: each image occurs once over all ranks."""

    def __init__(
        self, num_images: int, batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batches = torch.arange(num_images)[rank::world_size].split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[BatchIndices]:
        return map(BatchIndices, self.batches)
