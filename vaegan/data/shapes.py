"""Synthetic images for tests and first experiments."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName
from vaegan.images import ImageShape, to_uint8
from vaegan.runtime.seeding import make_generator


class Shapes(ImageSource):
    """Disks, squares and diamonds of random position, size and shade, generated from a seed."""

    LICENSE = "none needed: the images are computed from a random seed"
    class_names = ("disk", "square", "diamond")

    @dataclass
    class Config(ImageSource.Config):
        name: str = "shapes"
        channels: int = 1  # image channels, >= 1; 1: gray, 3: color
        height: int = 28  # image height in pixels, >= 1
        width: int = 28  # image width in pixels, >= 1
        num_train: int = 2000  # training images, >= 1
        num_val: int = 500  # validation images, >= 2
        num_test: int = 500  # test images, >= 1
        data_seed: int = 0  # random seed of the images

        def __post_init__(self) -> None:
            super().__post_init__()
            for key in ("channels", "height", "width", "num_train", "num_test"):
                require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)

    @property
    def image_shape(self) -> ImageShape:
        return (self.config.channels, self.config.height, self.config.width)

    def split(self, name: SplitName) -> Split:
        num = getattr(self.config, f"num_{name}")
        channels, height, width = self.image_shape
        rng = make_generator("shapes", self.config.data_seed, name)
        labels = torch.randint(3, (num,), generator=rng)
        center = torch.rand(num, 2, 1, 1, generator=rng) * 0.5 + 0.25  # fraction of height, width
        radius = (torch.rand(num, 1, 1, generator=rng) * 0.15 + 0.1) * min(height, width)
        shade = torch.rand(num, channels, 1, 1, generator=rng) * 0.6 + 0.4
        y = torch.arange(height).view(-1, 1) - center[:, 0] * height
        x = torch.arange(width).view(1, -1) - center[:, 1] * width
        disk = (x * x + y * y).sqrt()
        square = x.abs().maximum(y.abs())
        diamond = x.abs() + y.abs()
        distances = torch.stack([disk, square, diamond])
        is_inside = distances[labels, torch.arange(num)] <= radius
        return Split(to_uint8(is_inside.unsqueeze(1) * shade), labels)
