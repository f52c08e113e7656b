"""The one LightningDataModule: any `ImageSource`, held in memory as uint8; floats are made on the device."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaegan.config import require
from vaegan.data.batches import ImagesInMemory, LoaderConfig, SequentialBatches, ShuffledBatches
from vaegan.data.datasets import ImageSource, SplitName
from vaegan.images import to_float

Batch = tuple[Tensor, Tensor]  # images and labels


class ImageDataModule(pl.LightningDataModule):
    """Batches of (images in [0, 1], (B, C, H, W), channels last; labels (B,)).

    Raises:
        ValueError: On construction, if a file of the data set is missing or damaged, or if there are fewer training
            images than one batch takes.
    """

    def __init__(self, source: ImageSource, loader: LoaderConfig, seed: int) -> None:
        super().__init__()
        self.source, self.loader, self.seed = source, loader, seed
        splits: tuple[SplitName, ...] = ("train", "val", "test")
        self.splits = {name: ImagesInMemory(source.split(name)) for name in splits}
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
        images, _ = self.splits["val"][torch.arange(min(num, len(self.splits["val"])))]
        return to_float(images)

    def train_dataloader(self) -> DataLoader[Batch]:
        rank, world_size = self._rank()
        sampler = ShuffledBatches(len(self.splits["train"]), self.loader.batch_size, self.seed, rank, world_size)
        return self._loader("train", sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", self._sequential("val"))

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", self._sequential("test"))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        return to_float(images).contiguous(memory_format=torch.channels_last), labels

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _sequential(self, name: SplitName) -> SequentialBatches:
        return SequentialBatches(len(self.splits[name]), self.loader.eval_batch_size, *self._rank())

    def _loader(self, name: SplitName, sampler: Any) -> DataLoader[Batch]:
        return DataLoader(
            self.splits[name],
            sampler=sampler,
            batch_size=None,
            num_workers=self.loader.num_workers,
            persistent_workers=self.loader.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
