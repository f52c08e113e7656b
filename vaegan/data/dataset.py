"""Data sets. A source says what shape its images have, makes sure that they are there, and gives its three splits.

The official test split stays apart; train and val are a fixed, seeded division of the official training set. To add a
data set, write one class here.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from vaegan.config import Component, ComponentConfig, require
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape
from vaegan.runtime.seeding import generator

SplitName = Literal["train", "val", "test"]


class ArrayLike(Protocol):
    """A tensor (N, ...), or whatever yields parts of one when they are asked for, from a disk perhaps."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        """(n, ...)."""


class Split(NamedTuple):
    """Images and their classes."""

    images: ArrayLike  # uint8, (N, C, H, W), H and W at least the source's: what is too much, training cuts at random
    labels: ArrayLike  # int64, (N,)
    is_mirrored: bool = False  # whether training mirrors half of them, at random


class ImageSource(Component, abc.ABC, group="dataset"):
    """A data set of labelled images of one shape."""

    CLASSIFIER: ClassVar[str | None] = None  # weights of digits_cnn that know its classes
    LIKELIHOOD: ClassVar[str] = (
        "bernoulli"  # the noise model of its images, unless another one is chosen
    )

    @dataclass
    class Config(ComponentConfig):
        def build(self) -> ImageSource:
            built: ImageSource = self.component(self)
            return built

    @property
    @abc.abstractmethod
    def image_shape(self) -> ImageShape:
        """Channels, height, width."""

    @abc.abstractmethod
    def prepare(self) -> Sequence[SkippedFile]:
        """Make sure that all is there: download or decode what is missing.

        Returns:
            The files that are not used, because they are broken.

        Raises:
            ValueError: The data are not there and cannot be had, with the way out.
        """

    @abc.abstractmethod
    def split(self, name: SplitName) -> Split:
        """One split, in a fixed order.

        Raises:
            ValueError: A file is missing or damaged.
        """


class NaturalImageSource(ImageSource, abc.ABC):
    """Of natural images, of a size that the user chooses."""

    LIKELIHOOD: ClassVar[str] = "gaussian"

    @dataclass
    class Config(ImageSource.Config):
        image_size: Any = 64  # pixels: a number, or [height, width]
        channels: int = 3  # 3 color, 1 gray

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = "a number of pixels, at least 4, or [height, width]"
            require(is_size(self.image_size), "image_size", expected, self.image_size)
            require(self.channels in (1, 3), "channels", "1 (gray) or 3 (color)", self.channels)

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def image_shape(self) -> ImageShape:
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.config.channels, height, width)


def is_size(size: object) -> bool:
    """Whether it is a number of pixels or a list of two."""
    sizes = size if isinstance(size, list) and len(size) == 2 else [size]
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 4 for n in sizes)


def train_or_val(official: Split, name: SplitName, num_val: int, seed: int) -> Split:
    """The train or the val part of an official training set: a fixed random division of it.

    Raises:
        ValueError: if val would take all images.
    """
    num_images = len(official.images)
    require(
        num_val < num_images,
        "dataset.num_val",
        f"less than the {num_images} training images",
        num_val,
    )
    order = torch.randperm(num_images, generator=generator("split", seed))
    part = order[:num_val] if name == "val" else order[num_val:]
    return Split(official.images[part], official.labels[part])
