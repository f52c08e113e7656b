"""Synthetic images, for tests and first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape, to_uint8
from vaegan.runtime.seeding import generator


class Shapes(ImageSource):
    """Discs, squares and diamonds of random place, size and shade on a dark ground: made from a seed, for tests."""

    @dataclass
    class Config(ImageSource.Config):
        name: str = "shapes"
        channels: int = 1  # 1 gray, 3 color
        height: int = 28  # pixels
        width: int = 28  # pixels
        num_train: int = 2000  # images
        num_val: int = 500  # images
        num_test: int = 500  # images
        data_seed: int = 0  # of the images

        def __post_init__(self) -> None:
            super().__post_init__()
            for key in ("channels", "height", "width", "num_train", "num_test"):
                require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def image_shape(self) -> ImageShape:
        return (self.config.channels, self.config.height, self.config.width)

    def prepare(self) -> Sequence[SkippedFile]:
        return []

    def split(self, name: SplitName) -> Split:
        num = {
            "train": self.config.num_train,
            "val": self.config.num_val,
            "test": self.config.num_test,
        }[name]
        channels, height, width = self.image_shape
        rng = generator("shapes", self.config.data_seed, name)
        labels = torch.randint(3, (num,), generator=rng)
        place = (
            torch.rand(num, 2, 1, 1, generator=rng) * 0.5 + 0.25
        )  # of the center, as a share of height and width
        radius = (torch.rand(num, 1, 1, generator=rng) * 0.15 + 0.1) * min(height, width)
        shade = torch.rand(num, channels, 1, 1, generator=rng) * 0.6 + 0.4
        y = torch.arange(height).view(-1, 1) - place[:, 0] * height
        x = torch.arange(width).view(1, -1) - place[:, 1] * width
        distances = torch.stack(
            [(x * x + y * y).sqrt(), x.abs().maximum(y.abs()), x.abs() + y.abs()]
        )
        inside = distances[labels, torch.arange(num)] <= radius
        return Split(to_uint8(inside.unsqueeze(1) * shade), labels)
