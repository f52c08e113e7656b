"""The one LightningDataModule: any `ImageSource`, as uint8; floats are made on the device."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vaegan.config import require
from vaegan.data.batches import BatchIndices, LoaderConfig, SequentialBatches, ShuffledBatches
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import ImageSource, SplitName
from vaegan.data.streaming import StreamedBatches, StreamedImages
from vaegan.images import to_float
from vaegan.runtime.signals import ignore_signals

log = logging.getLogger(__name__)
NUM_HASHED = 64  # training images by which a data set is known again
Batch = tuple[Tensor, Tensor]  # images and labels


class ImageDataModule(pl.LightningDataModule):
    """Batches of (images in [0, 1], (B, C, H, W), channels last; labels (B,)).

    A split that fits into `loader.device_share` of a GPU's free memory is held there: only indices go to it then.

    Raises:
        ValueError: On construction, if a file of the data set is missing or damaged, or if there are fewer training
            images than one batch takes.
    """

    def __init__(self, source: ImageSource, loader: LoaderConfig, seed: int) -> None:
        super().__init__()
        self.source, self.loader, self.seed = source, loader, seed
        self.skipped = source.prepare()
        if self.skipped:
            first, why = self.skipped[0]
            rank_zero_only(log.warning)(
                "%d files are skipped; the first is %r: %s", len(self.skipped), first, why
            )
        splits: tuple[SplitName, ...] = ("train", "val", "test")
        self.splits = {
            name: ImageDataset(source.split(name), list(source.image_shape[1:])) for name in splits
        }
        self.held: dict[str, ImageDataset] = {}  # splits that are on the device
        self.done = (
            0,
            0,
        )  # finished epochs, and batches of the one that has begun, where a training goes on
        num_train = len(self.splits["train"])
        require(
            loader.batch_size <= num_train,
            "loader.batch_size",
            f"at most the {num_train} training images",
            loader.batch_size,
        )

    @property
    def num_train_batches(self) -> int:
        """Steps of one epoch."""
        return len(self.splits["train"]) // self.loader.batch_size

    def example_images(self, num: int) -> Tensor:
        """The first images of the val split, in [0, 1], (num, C, H, W)."""
        return to_float(self.splits["val"].images[:num])

    def train_dataloader(self) -> DataLoader[Batch] | StreamedBatches:
        rank, world_size = self._rank()
        split = self.splits["train"]
        if isinstance(split.images, StreamedImages):
            batch_size = self.loader.batch_size // world_size
            return split.images.loader(batch_size, self.loader.num_workers, self.seed, self.done)
        batch_size, is_augmented = self.loader.batch_size, split.is_augmented
        batches = ShuffledBatches(
            len(split), batch_size, self.seed, rank, world_size, is_augmented=is_augmented
        )
        batches.resume_at(*self.done)
        return self._loader("train", batches)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", self._sequential("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", self._sequential("test"))

    def on_after_batch_transfer(self, batch: Batch | BatchIndices, dataloader_idx: int) -> Batch:
        if isinstance(batch, BatchIndices):
            assert self.trainer is not None and self.trainer.state.stage is not None
            batch = self.held[str(self.trainer.state.stage.dataloader_prefix)][batch]
        images, labels = batch
        return to_float(images).contiguous(memory_format=torch.channels_last), labels

    def state_dict(self) -> dict[str, Any]:
        assert self.trainer is not None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = (self.trainer.current_epoch, batches.completed)
        return {"done": done, "world_size": self._rank()[1], "data": self.fingerprint()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        was, now = state_dict["world_size"], self._rank()[1]
        require(
            was == now,
            "trainer.devices * trainer.num_nodes",
            f"{was}, as when the run was begun",
            now,
        )
        if self.fingerprint() != state_dict["data"]:
            raise ValueError(
                "the data set is not the one that the run was begun with (its images, their number, or for "
                "dataset=streaming loader.num_workers); go on with that one"
            )
        self.done = state_dict["done"]

    def fingerprint(self) -> list[int | str]:
        """What tells data sets, and their orders, apart: sizes of the splits, and a hash of some training images."""
        train = self.splits["train"]
        sizes: list[int | str] = [len(split) for split in self.splits.values()]
        if isinstance(train.images, StreamedImages):
            return [*sizes, self.loader.num_workers]
        some = torch.linspace(0, len(train) - 1, NUM_HASHED).long()
        return [*sizes, hashlib.sha256(train.images[some].numpy().tobytes()).hexdigest()]

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _sequential(self, name: SplitName) -> SequentialBatches:
        return SequentialBatches(len(self.splits[name]), self.loader.eval_batch_size, *self._rank())

    def _loader(self, name: SplitName, sampler: Sampler[BatchIndices]) -> DataLoader[Any]:
        if self._hold(name):
            return DataLoader(
                OnDeviceDataset(len(self.splits[name])), sampler=sampler, batch_size=None
            )
        return DataLoader(
            self.splits[name],
            sampler=sampler,
            batch_size=None,
            num_workers=self.loader.num_workers,
            persistent_workers=self.loader.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=ignore_signals,
        )

    def _hold(self, name: SplitName) -> bool:
        """Whether a split is on the device: it is brought there if it is not, and fits."""
        if name not in self.held and self.trainer:
            device, split = self.trainer.strategy.root_device, self.splits[name]
            if split.num_bytes <= self.loader.device_share * free_memory(device):
                self.held[name] = split.to(device)
        return name in self.held


class OnDeviceDataset(Dataset[BatchIndices]):
    """Stands for images that are on the device already: gives back what it is asked for."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, pick: BatchIndices) -> BatchIndices:
        return pick


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a GPU; 0 for what is none."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
