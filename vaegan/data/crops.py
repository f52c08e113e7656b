"""What a training step sees of images that are larger than the model wants, or may be mirrored."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import center_crop, horizontal_flip

from vaegan.data.batches import BatchIndices
from vaegan.data.dataset import ArrayLike, Split
from vaegan.data.images.memmap import MappedImages

PART = 4096  # images that are copied at once


class CenteredImages:
    """The middle of larger images: `images[which]` is uint8 (n, C, *size)."""

    def __init__(self, images: ArrayLike, size: list[int]) -> None:
        self.larger, self.size = images, size

    def __len__(self) -> int:
        return len(self.larger)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        center: Tensor = center_crop(self.larger[which], self.size)
        return center


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """A split, indexed by whole batches: `dataset[pick]` is (uint8 images (B, C, H, W), labels (B,)).

    Args:
        split: The images, of `size` (height, width) or larger.
    """

    def __init__(self, split: Split, size: list[int]) -> None:
        self.split, self.size, self.labels = split, size, split.labels
        self.is_larger = len(self) > 0 and list(split.images[:1].shape[2:]) != size
        self.images: ArrayLike = (
            CenteredImages(split.images, size) if self.is_larger else split.images
        )

    @property
    def is_augmented(self) -> bool:
        """Whether training sees an image in more than one way."""
        return self.is_larger or self.split.is_mirrored

    @property
    def num_bytes(self) -> float:
        """That all images take; infinite where each is decoded when it is asked for."""
        is_decoded = isinstance(self.split.images, Tensor | MappedImages)
        return self.split.images[:1].nelement() * len(self) if is_decoded else math.inf

    def to(self, device: torch.device) -> ImageDataset:
        """The same, on a device."""
        images = torch.empty(
            len(self), *self.split.images[:1].shape[1:], dtype=torch.uint8, device=device
        )
        for start in range(0, len(self), PART):
            images[start : start + PART] = self.split.images[start : start + PART].to(device)
        return ImageDataset(
            self.split._replace(images=images, labels=self.labels[: len(self)].to(device)),
            self.size,
        )

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, pick: BatchIndices) -> tuple[Tensor, Tensor]:
        indices, draws = pick
        if draws is None:
            return take(self.images, indices), self.labels[indices]
        images = random_views(
            take(self.split.images, indices), draws, self.size, self.split.is_mirrored
        )
        return images, self.labels[indices]


def take(images: ArrayLike, indices: Tensor) -> Tensor:
    """The images of these indices; several times faster than indexing a tensor."""
    return images.index_select(0, indices) if isinstance(images, Tensor) else images[indices]


def random_views(images: Tensor, draws: Tensor, size: list[int], mirrors: bool) -> Tensor:
    """Each image cut to `size` at a place of its own, and half of them mirrored.

    Args:
        images: (B, C, at least H, at least W).
        draws: Uniform in [0, 1), (B, 3): how far down, how far to the right, whether mirrored.
        size: H, W.
        mirrors: Whether any is.
    """
    windows = images.unfold(2, size[0], 1).unfold(
        3, size[1], 1
    )  # (B, C, places down, places right, H, W)
    down, right = ((draws[:, i] * windows.shape[2 + i]).long() for i in (0, 1))
    cut = windows[torch.arange(len(images), device=images.device), :, down, right]
    if not mirrors:
        return cut
    mirrored: Tensor = torch.where(draws[:, 2].view(-1, 1, 1, 1) < 0.5, horizontal_flip(cut), cut)
    return mirrored
