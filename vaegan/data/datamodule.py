"""LightningDataModule for any `ImageSource`. Images are loaded as uint8."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vaegan.config import require
from vaegan.data.batches import BatchIndices, LoaderConfig, SequentialBatches, ShuffledBatches
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import SPLIT_NAMES, ImageSource, SplitName
from vaegan.data.images.scanning import SkippedFile
from vaegan.data.loader_processes import ImageLoader, kill_loader_processes
from vaegan.images import to_float

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]  # images and labels


class ImageDataModule(pl.LightningDataModule):
    """Data module with batches of (images, labels).

    Images are float32 in [0, 1], (B, C, H, W), in channels-last memory format; labels are (B,). A
    split that fits into `loader.device_share` of a GPU's free memory is kept on the GPU; the data
    loader then returns only indices.

    Args:
        source: Data set.
        loader: Batch sizes and data loading.
        seed: Random seed of the data order and of the augmentation.

    Raises:
        ValueError: On construction, if a file of the data set is missing or damaged, or if a batch
            needs more images than the training split has and the data set does not allow that.
    """

    def __init__(self, source: ImageSource, loader: LoaderConfig, seed: int) -> None:
        super().__init__()
        self.source = source
        self.loader = loader
        self.seed = seed
        self.epoch = 0  # first epoch to load; above 0 in a resumed run
        self.batches_done = 0  # batches of that epoch to skip
        self.on_device: dict[str, ImageDataset] = {}  # splits on the GPU, by name
        source.prepare_once()
        size = list(source.image_shape[1:])
        self.splits = {name: ImageDataset(source.split(name), size) for name in SPLIT_NAMES}
        num_train = len(self.splits["train"])
        expected = f"at most {num_train}, the number of training images"
        is_large_enough = loader.images_per_step <= num_train
        if not is_large_enough and source.REPEATS_IMAGES:
            message = "only %d training images: each batch of loader.batch_size=%d repeats some"
            rank_zero_only(log.warning)(message, num_train, loader.images_per_step)
        else:
            require(is_large_enough, "loader.batch_size", expected, loader.images_per_step)

    @property
    def skipped(self) -> Sequence[SkippedFile]:
        """Broken files found so far, also by data loader processes."""
        return self.source.skipped_files()

    @property
    def num_train_batches(self) -> int:
        """Number of training steps per epoch."""
        return max(1, len(self.splits["train"]) // self.loader.images_per_step)

    def example_images(self, num: int) -> Tensor:
        """Return the first `num` images of the val split, in [0, 1], (num, C, H, W)."""
        return to_float(self.splits["val"].images[:num])

    def setup(self, stage: str) -> None:
        _, world_size = self._rank_and_world_size()
        name = min(SPLIT_NAMES[1:], key=lambda name: len(self.splits[name]))
        num_images = len(self.splits[name])
        expected = f"at most {num_images}, the number of {name} images"
        require(
            world_size <= num_images, "trainer.devices * trainer.num_nodes", expected, world_size
        )

    def train_dataloader(self) -> Iterable[Any]:
        rank, world_size = self._rank_and_world_size()
        source_loader = self.source.train_loader(
            self.loader.images_per_step // world_size,
            self.loader.num_workers,
            self.seed,
            self.epoch,
            self.batches_done,
        )
        if source_loader is not None:
            return source_loader
        split = self.splits["train"]
        batch_size, is_augmented = self.loader.images_per_step, split.is_augmented
        batches = ShuffledBatches(len(split), batch_size, self.seed, rank, world_size, is_augmented)
        batches.resume_at(self.epoch, self.batches_done)
        return self._loader("train", batches)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._eval_loader("test")

    def on_after_batch_transfer(self, batch: Batch | BatchIndices, dataloader_idx: int) -> Batch:
        if isinstance(batch, BatchIndices):
            assert self.trainer is not None and self.trainer.state.stage is not None
            split_name = str(self.trainer.state.stage.dataloader_prefix)
            batch = self.on_device[split_name][batch]
        images, labels = batch
        return to_float(images).contiguous(memory_format=torch.channels_last), labels

    def on_exception(self, exception: BaseException) -> None:
        kill_loader_processes()

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        batch_progress = self.trainer.fit_loop.epoch_loop.batch_progress.current
        _, world_size = self._rank_and_world_size()
        return {
            "epoch": self.trainer.current_epoch,
            "batches_done": batch_progress.completed,
            "world_size": world_size,
            "data": self.fingerprint,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved_world_size = state_dict["world_size"]
        _, world_size = self._rank_and_world_size()
        require(
            world_size == saved_world_size,
            "trainer.devices * trainer.num_nodes",
            f"{saved_world_size}, as in the run that is resumed",
            world_size,
        )
        self.check_fingerprint(state_dict)
        self.epoch = state_dict["epoch"]
        self.batches_done = state_dict["batches_done"]

    def check_fingerprint(self, state_dict: Mapping[str, Any]) -> None:
        """Check that a run was started with this data set.

        Raises:
            ValueError: The data set differs.
        """
        if self.fingerprint != state_dict["data"]:
            raise ValueError(
                "the data set differs from the one that the run was started with: the images, "
                "their number or, for dataset=streaming, loader.num_workers changed. Restore them "
                "to resume"
            )

    @cached_property
    def fingerprint(self) -> list[int | str]:
        """Split sizes, and the fingerprint of the training images and their order.

        The value is cached, because a data set without an image cache decodes images to compute it.
        """
        sizes = [len(split) for split in self.splits.values()]
        train_images = self.splits["train"].images
        return [*sizes, self.source.fingerprint(train_images, self.loader.num_workers)]

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _eval_loader(self, name: SplitName) -> DataLoader[Any]:
        num_images = len(self.splits[name])
        batch_size = self.loader.eval_batch_size
        batches = SequentialBatches(num_images, batch_size, *self._rank_and_world_size())
        return self._loader(name, batches)

    def _loader(self, name: SplitName, batches: Sampler[BatchIndices]) -> DataLoader[Any]:
        self._move_to_device(name)
        if name in self.on_device:
            return DataLoader(IndexDataset(), sampler=batches, batch_size=None)
        return ImageLoader(
            self.splits[name],
            sampler=batches,
            batch_size=None,
            num_workers=self.loader.num_workers,
            persistent_workers=self.loader.num_workers > 0,
            pin_memory=self._uses_gpu(),
            is_training=name == "train",
        )

    def _uses_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _move_to_device(self, name: SplitName) -> None:
        """Copy a split to the GPU if it fits and is not there yet."""
        if name in self.on_device or not self.trainer:
            return
        device = self.trainer.strategy.root_device
        split = self.splits[name]
        if split.num_bytes <= self.loader.device_share * free_memory(device):
            self.on_device[name] = split.to(device)


class IndexDataset(Dataset[BatchIndices]):
    """Data set that returns batch indices unchanged, for images that are already on the device."""

    def __getitem__(self, batch: BatchIndices) -> BatchIndices:
        return batch


def free_memory(device: torch.device) -> int:
    """Return the free memory of a GPU in bytes; 0 for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
