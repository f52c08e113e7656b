"""Center crops for evaluation, random crops and mirroring for training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import center_crop, horizontal_flip

from vaegan.data.batches import BatchIndices
from vaegan.data.dataset import ArrayLike, Split

IMAGES_PER_COPY = 4096  # images that are copied to a device at once


class CenteredImages:
    """Center crops of larger images: `images[index]` is uint8 (n, C, *size)."""

    def __init__(self, images: ArrayLike, size: list[int]) -> None:
        self.larger_images = images
        self.size = size

    def __len__(self) -> int:
        return len(self.larger_images)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return center_crop(self.larger_images[index], self.size)


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """A split, indexed by batches: (uint8 (B, C, H, W), int64 (B,)) of `BatchIndices`.

    Args:
        split: Images of `size` or larger.
        size: Height and width of what the model sees.
    """

    def __init__(self, split: Split, size: list[int]) -> None:
        self.split = split
        self.size = size
        self.labels = split.labels
        self.images = split.images  # as evaluation sees them
        self.is_cropped = len(self) > 0 and list(split.images[:1].shape[2:]) != size
        if self.is_cropped:
            self.images = CenteredImages(split.images, size)

    @property
    def is_augmented(self) -> bool:
        """True if training crops or mirrors at random."""
        return self.is_cropped or self.split.is_mirrored

    @property
    def num_bytes(self) -> float:
        """Size of all images; infinite if each is decoded when it is used."""
        return getattr(self.split.images, "nbytes", math.inf)

    def to(self, device: torch.device) -> ImageDataset:
        """Copy to a device."""
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
    """Return images by index. `index_select` is several times faster than indexing a tensor."""
    return images.index_select(0, indices) if isinstance(images, Tensor) else images[indices]


def random_crops(
    images: Tensor, crop_randoms: Tensor, size: list[int], is_mirrored: bool
) -> Tensor:
    """Crop each image to `size` at a position of its own, and mirror half of them.

    Args:
        images: (B, C, at least H, at least W).
        crop_randoms: Uniform in [0, 1), (B, 3): vertical position, horizontal position, mirroring.
        size: H, W.
        is_mirrored: False to mirror none.
    """
    windows = images.unfold(2, size[0], 1).unfold(3, size[1], 1)  # (B, C, tops, lefts, H, W)
    top = (crop_randoms[:, 0] * windows.shape[2]).long()
    left = (crop_randoms[:, 1] * windows.shape[3]).long()
    image_indices = torch.arange(len(images), device=images.device)
    crops = windows[image_indices, :, top, left]
    if not is_mirrored:
        return crops
    has_mirroring = crop_randoms[:, 2].view(-1, 1, 1, 1) < 0.5
    return torch.where(has_mirroring, horizontal_flip(crops), crops)
