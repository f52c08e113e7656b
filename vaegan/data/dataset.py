"""Base classes of data sets.

A data set is one class with a config, an image shape, and a method that returns a split:

    class Noise(ImageSource):  # dataset=noise
        image_shape = (1, 8, 8)

        @dataclass
        class Config(ImageSource.Config):
            name: str = "noise"

        def split(self, name: SplitName) -> Split:
            return Split(torch.randint(256, (100, 1, 8, 8)).byte(), torch.zeros(100).long())

Official test images always form the test split. Train and val are a fixed, seeded division of the
official training set.
"""

from __future__ import annotations

import abc
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from vaegan.config import Component, ComponentConfig, require
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.seeding import make_generator

log = logging.getLogger(__name__)

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")
NUM_HASHED_IMAGES = 64  # training images in the fingerprint of a data set


class ArrayLike(Protocol):
    """Tensor (N, ...), or an object that loads parts of a tensor on demand.

    An object that stores all images decoded also has the attribute `nbytes`, like a tensor. The
    data module may then copy the images to the GPU.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """Return the selected entries, (n, ...)."""


class Split(NamedTuple):
    """Images and labels of a split."""

    images: ArrayLike  # uint8, (N, C, H, W); if larger than `image_shape`, training crops at random
    labels: ArrayLike  # int64, (N,)
    is_mirrored: bool = False  # True to mirror a random half of the images in training


class ImageSource(Component, abc.ABC, group="dataset"):
    """Data set of labeled images that all have the same shape."""

    CLASSIFIER: ClassVar[str | None] = None  # digits_cnn weights for these classes, if any
    LIKELIHOOD: ClassVar[str] = "bernoulli"  # default noise model of the images
    # True for photos, drawings and similar images: other defaults for the decoder's padding, the
    # precision, the GAN and the duration
    IS_NATURAL: ClassVar[bool] = False
    DEFAULT_ROOT: ClassVar[str | None] = None  # folder of the data files if `root` is null
    # True to repeat images in a batch that is larger than the training split, False to reject it
    REPEATS_IMAGES: ClassVar[bool] = False
    LICENSE: ClassVar[str | None] = None  # license of the images, for model cards; None if unknown
    class_names: Sequence[str] | None = None  # name of each label; None if unknown
    is_prepared = False  # True after `prepare_once`

    @dataclass
    class Config(ComponentConfig):
        def build(self) -> ImageSource:
            return self.component(self)

        def resolve_defaults(self) -> Self:
            """Return the config with the defaults that depend on the machine filled in.

            Saved configs contain the resolved values, which hold on any machine.
            """
            return self

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    @abc.abstractmethod
    def image_shape(self) -> ImageShape:
        """Channels, height, width. Available before any data are read."""

    @property
    def min_training_images(self) -> int:
        """Minimum number of training images of the default duration, counting repeats."""
        return 128_000 if self.IS_NATURAL else 0

    @abc.abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return one split, in a fixed order.

        Raises:
            ValueError: A file is missing or damaged.
        """

    def prepare(self) -> Sequence[SkippedFile]:
        """Download or decode missing data. Called before the first call of `split`.

        Returns:
            Broken files, which are not used.

        Raises:
            ValueError: Data are missing and cannot be obtained. The message gives the remedy.
        """
        return []

    def prepare_once(self) -> None:
        """Call `prepare`, unless an earlier call of this method has done so; log broken files."""
        if self.is_prepared:
            return
        skipped = self.prepare()
        self.is_prepared = True
        if skipped and is_rank_zero():
            path, reason = skipped[0]
            log.warning("skipped files: %d; the first is %r: %s", len(skipped), path, reason)

    def skipped_files(self) -> Sequence[SkippedFile]:
        """Return the broken files that any process has found so far, also during training."""
        return []

    def image_name(self, split: SplitName, index: int) -> str | None:
        """Return the name of an image, such as its path; None if the images have no names."""
        return None

    def train_loader(
        self, batch_size: int, num_workers: int, seed: int, epoch: int, batches_done: int
    ) -> Iterable[tuple[Tensor, Tensor]] | None:
        """Return a training loader for data that are too large for random access, or None.

        Batches must be a function of the seed, the epoch and the rank. Ranks must load different
        images.

        Args:
            batch_size: Images per batch of this rank.
            num_workers: Data loader processes.
            seed: Random seed of the order.
            epoch: First epoch to load.
            batches_done: Batches of that epoch to skip.

        Returns:
            The loader; None to use the data module's own loader.
        """
        return None

    def fingerprint(self, train_images: ArrayLike, num_workers: int) -> int | str:
        """Return a value that identifies the training images and their order in an epoch.

        A resumed run compares this value with the one in its checkpoint.
        """
        last = len(train_images) - 1
        indices = torch.linspace(0, last, NUM_HASHED_IMAGES).long()
        pixels = train_images[indices].numpy()
        return hashlib.sha256(pixels.tobytes()).hexdigest()


class NaturalImageSource(ImageSource, abc.ABC):
    """Natural images at a configurable size."""

    LIKELIHOOD: ClassVar[str] = "gaussian"
    IS_NATURAL: ClassVar[bool] = True

    @dataclass
    class Config(ImageSource.Config):
        # image size in pixels, >= 4: one number, or [height, width]; null: 64 with a GPU, else 32
        image_size: Any = None
        channels: int = 3  # image channels; 3: color, 1: gray

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = "a number of pixels of at least 4, [height, width], or null"
            is_valid = self.image_size is None or is_image_size(self.image_size)
            require(is_valid, "image_size", expected, self.image_size)
            require(self.channels in (1, 3), "channels", "1 (gray) or 3 (color)", self.channels)

        def resolve_defaults(self) -> Self:
            default = 64 if torch.cuda.is_available() else 32
            return replace(self, image_size=self.image_size or default)

    @property
    def image_shape(self) -> ImageShape:
        size = self.config.resolve_defaults().image_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.config.channels, height, width)


def is_image_size(size: object) -> bool:
    """True for a number of pixels >= 4, or a list of two such numbers."""
    sizes = size if isinstance(size, list) and len(size) == 2 else [size]
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 4 for n in sizes)


def train_or_val_split(official: Split, name: SplitName, num_val: int, seed: int) -> Split:
    """Return the train or val split of an official training set, divided at random by the seed.

    Raises:
        ValueError: `num_val` leaves no images for training.
    """
    num_images = len(official.images)
    expected = f"less than {num_images}, the number of training images"
    require(num_val < num_images, "dataset.num_val", expected, num_val)
    order = torch.randperm(num_images, generator=make_generator("split", seed))
    indices = order[:num_val] if name == "val" else order[num_val:]
    return Split(official.images[indices], official.labels[indices])
