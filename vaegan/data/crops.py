"""Center crops for evaluation; random crops and mirroring for training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import center_crop, horizontal_flip

from vaegan.data.batches import BatchIndices
from vaegan.data.dataset import ArrayLike, Split

IMAGES_PER_COPY = 4096  # images copied to a device at a time


class CenteredImages:
    """Center-cropped view of larger images: `images[index]` is uint8, (n, C, *size)."""

    def __init__(self, images: ArrayLike, size: list[int]) -> None:
        self.larger_images = images
        self.size = size

    def __len__(self) -> int:
        return len(self.larger_images)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return center_crop(self.larger_images[index], self.size)


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels of a split, indexed by `BatchIndices`: uint8 (B, C, H, W) and int64 (B,).

    Args:
        split: Images of at least `size`.
        size: Height and width of the model's input, in pixels.
    """

    def __init__(self, split: Split, size: list[int]) -> None:
        self.split = split
        self.size = size
        self.labels = split.labels
        self.images = split.images  # for evaluation: without augmentation
        self.is_cropped = len(self) > 0 and list(split.images[:1].shape[2:]) != size
        if self.is_cropped:
            self.images = CenteredImages(split.images, size)

    @property
    def is_augmented(self) -> bool:
        """True if training crops or mirrors images at random."""
        return self.is_cropped or self.split.is_mirrored

    @property
    def num_bytes(self) -> float:
        """Size of all images in bytes; infinite if images are decoded on demand."""
        return getattr(self.split.images, "nbytes", math.inf)

    def to(self, device: torch.device) -> ImageDataset:
        """Return a copy of this data set on a device."""
        shape = self.split.images[:1].shape[1:]
        images = torch.empty(len(self), *shape, dtype=torch.uint8, device=device)
        for start in range(0, len(self), IMAGES_PER_COPY):
            chunk = slice(start, start + IMAGES_PER_COPY)
            images[chunk] = self.split.images[chunk].to(device)
        labels = self.labels[:].to(device)
        return ImageDataset(Split(images, labels, self.split.is_mirrored), self.size)

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, batch: BatchIndices) -> tuple[Tensor, Tensor]:
        indices, crop_randoms = batch
        labels = self.labels[indices]
        if crop_randoms is None:
            return select(self.images, indices), labels
        images = select(self.split.images, indices)
        return random_crops(images, crop_randoms, self.size, self.split.is_mirrored), labels


def select(images: ArrayLike, indices: Tensor) -> Tensor:
    """Return the images at the given indices."""
    # index_select is several times faster than indexing a tensor.
    return images.index_select(0, indices) if isinstance(images, Tensor) else images[indices]


def random_crops(
    images: Tensor, crop_randoms: Tensor, size: list[int], is_mirrored: bool
) -> Tensor:
    """Crop each image to `size` at its own random position, and mirror half of the images.

    Args:
        images: Images at least as large as `size`, (B, C, height, width).
        crop_randoms: Uniform in [0, 1), (B, 3): vertical position, horizontal position, mirroring.
        size: Height and width of the crops, in pixels.
        is_mirrored: True to mirror images, False to only crop them.
    """
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (B, C, tops, lefts, H, W)
    top = (crop_randoms[:, 0] * windows.shape[2]).long()
    left = (crop_randoms[:, 1] * windows.shape[3]).long()
    image_indices = torch.arange(len(images), device=images.device)
    crops = windows[image_indices, :, top, left]
    if not is_mirrored:
        return crops
    is_flipped = crop_randoms[:, 2].view(-1, 1, 1, 1) < 0.5
    return torch.where(is_flipped, horizontal_flip(crops), crops)
