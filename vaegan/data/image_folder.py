"""Data set of image files in a folder, with optional subfolders for classes and splits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.dataset import SPLIT_NAMES, NaturalImageSource, Split, SplitName
from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.cache_index import CacheRecord
from vaegan.data.images.decoding import MAX_PIXELS, SUFFIXES, ImageDecoder, ImageTraits
from vaegan.data.images.doubtful_images import describe_constant_images, describe_doubtful_traits
from vaegan.data.images.hash_division import MAX_SHARE, HashDivision, default_fraction
from vaegan.data.images.image_cache import CachedImages, ImageCache
from vaegan.data.images.left_out import EXPECTED_REASONS, LeftOutFile, summarize
from vaegan.data.images.memmap import MemmapImages
from vaegan.data.images.on_demand import ImagesOnDemand, check_files
from vaegan.data.images.reading import Content, count_usable_cores
from vaegan.data.images.scanning import ImageFile, SkippedFile, scan
from vaegan.data.images.split_folders import FolderLabels, Layout, read_layout
from vaegan.data.images.split_table import format_split_table
from vaegan.runtime.paths import cache_home

log = logging.getLogger(__name__)
CACHE_FORMAT = 5  # increase when the decoder or the cache layout changes: starts new caches
MIN_IMAGES = 50  # smallest number of images that default fractions can divide
CROP_MARGIN = 8  # crop=random stores images that are larger than the crop by one eighth


class ImageFolder(NaturalImageSource):
    """Image files below `dataset.root`, decoded once into a cache at the training resolution.

    Folders directly below the root are classes, unless folders with names such as train, val2017 or
    testing are splits (`split_folders.py`). Images for a split without a folder are taken from the
    training images by a hash of their content (`hash_division.py`).
    """

    REPEATS_IMAGES = True  # so that small folders train with the usual batch size

    @dataclass
    class Config(NaturalImageSource.Config):
        name: str = "image_folder"
        root: str = MISSING  # folder of the image files; subfolders are included
        # crop to the shape of image_size: center, random (in training only), or none (stretch)
        crop: str = "center"
        flip: bool = False  # true: mirror a random half of the images in training
        # color behind transparent pixels: red, green, blue, each in 0 to 255
        background: list[int] = field(default_factory=lambda: [255, 255, 255])
        # maximum width * height of an image file; larger images count as broken
        max_pixels: int = 80_000_000
        # significant bits per pixel in 16-bit gray files, 8 to 16; 12 for 12-bit cameras
        bit_depth: int = 16
        # what to do with broken image files: skip them, or fail at the first one
        on_error: str = "skip"
        max_broken: float = 0.1  # maximum fraction of files that may be skipped, in [0, 1]
        # true: folders with names such as train, val and test are splits; false: they are classes;
        # null: they are splits if one for training and one for val or test lie at the same depth
        split_folders: bool | None = None
        # fraction of the images used for validation if there is no folder for it, in (0, 1); null:
        # 0.1, or more if needed to get 100 images, at most 0.2
        val_fraction: float | None = None
        # fraction of the images used for testing if there is no folder for it, in (0, 1); null: as
        # for val_fraction
        test_fraction: float | None = None
        split_seed: int = 0  # random seed of the division into train, val and test
        # cache folder for decoded images; auto: in ~/.cache/vaegan; null: decode images on demand
        cache: str | None = "auto"
        num_threads: int | None = None  # decoding threads, >= 1; null: one per CPU core

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.root != "", "root", "the folder of the images", self.root)
            if self.root != MISSING:  # the GAN may be trained from another working folder
                self.root = os.path.abspath(os.path.expanduser(self.root))
            is_known_crop = self.crop in ("center", "random", "none")
            require(is_known_crop, "crop", "center, random or none", self.crop)
            levels = self.background
            is_color = len(levels) == 3 and all(0 <= level <= 255 for level in levels)
            require(is_color, "background", "three numbers from 0 to 255", levels)
            is_in_range = 1 <= self.max_pixels <= MAX_PIXELS
            require(is_in_range, "max_pixels", f"from 1 to {MAX_PIXELS}", self.max_pixels)
            is_depth = 8 <= self.bit_depth <= 16
            require(is_depth, "bit_depth", "from 8 to 16", self.bit_depth)
            require(self.on_error in ("skip", "fail"), "on_error", "skip or fail", self.on_error)
            require(self.cache != "", "cache", "auto, a folder, or null", self.cache)
            require(0 <= self.max_broken <= 1, "max_broken", "in [0, 1]", self.max_broken)
            total = 0.0
            for key in ("val_fraction", "test_fraction"):
                value = getattr(self, key)
                require(value is None or 0 < value < 1, key, "in (0, 1), or null", value)
                total += MAX_SHARE if value is None else value
            require(total < 1, "val_fraction + dataset.test_fraction", "less than 1", total)
            threads = self.num_threads
            require(threads is None or threads >= 1, "num_threads", "at least 1, or null", threads)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.root = Path(config.root)
        self.num_threads = config.num_threads or count_usable_cores()
        self.paths: dict[str, list[str]] = {}  # image paths of each split, in order
        self.splits: dict[str, Split] = {}
        self.images: dict[str, MemmapImages | ImagesOnDemand] = {}  # of each split
        self.fractions: dict[str, float] = {}  # fraction of the training images taken for a split
        self.traits: dict[str, ImageTraits] = {}  # by path
        self.broken_files: BrokenFileLimit | None = None
        self.left_out: list[LeftOutFile] = []  # files that look like images but are not used

    @property
    def decoder(self) -> ImageDecoder:
        """Decoder for the files, with the settings of this data set."""
        channels, height, width = self.image_shape
        if self.config.crop == "random":
            height += -(-height // CROP_MARGIN)
            width += -(-width // CROP_MARGIN)
        red, green, blue = self.config.background
        keeps_ratio = self.config.crop != "none"
        background = (red, green, blue)
        return ImageDecoder(
            channels,
            height,
            width,
            keeps_ratio,
            background,
            self.config.max_pixels,
            self.config.bit_depth,
        )

    @property
    def cache(self) -> ImageCache | None:
        """Cache for this folder and these settings; None if `dataset.cache` is null."""
        if self.config.cache is None:
            return None
        is_auto = self.config.cache == "auto"
        home = cache_home() / "images" if is_auto else Path(self.config.cache).expanduser()
        settings = [CACHE_FORMAT, str(self.root.resolve()), dataclasses.asdict(self.decoder)]
        serialized = json.dumps(settings).encode(errors="surrogateescape")
        key = hashlib.blake2b(serialized, digest_size=12).hexdigest()
        return ImageCache(home / key, self.root, self.decoder, self.num_threads)

    def prepare(self) -> list[SkippedFile]:
        if not self.root.is_dir():
            raise ValueError(
                f"dataset.root={self.config.root} is not a folder; set it to the folder of your "
                "images (also if the images of a trained model have moved)"
            )
        found = scan(self.root)
        num_files = len(found.files) + len(found.unreadable)
        if not num_files:
            suffixes = ", ".join(sorted(SUFFIXES))
            others = f"; left out: {summarize(found.left_out)}" if found.left_out else ""
            raise ValueError(
                f"dataset.root={self.config.root} contains no image files ({suffixes}){others}"
            )
        fail_fast = self.config.on_error == "fail"
        broken_files = BrokenFileLimit(num_files, self.config.max_broken, fail_fast)
        self.broken_files = broken_files
        for skipped in found.unreadable:
            broken_files.skip(skipped)
        layout = self.read_layout([file.path for file in found.files])
        used = [file for file in found.files if file.path in layout.labels]
        self._make_splits(used, layout.labels, broken_files, may_shrink=not found.unreadable)
        self.left_out = found.left_out + layout.left_out
        self._check_sizes()
        self._log_summary(layout)
        return broken_files.skipped

    def skipped_files(self) -> list[SkippedFile]:
        return self.broken_files.skipped if self.broken_files else []

    def split(self, name: SplitName) -> Split:
        if not self.splits:
            self.prepare()
        return self.splits[name]

    def read_layout(self, paths: list[str]) -> Layout:
        """Return the split and the class of each image file."""
        return read_layout(paths, self.config.split_folders)

    def image_name(self, split: SplitName, index: int) -> str:
        return self.paths[split][index]

    def _make_splits(
        self,
        files: list[ImageFile],
        labels: Mapping[str, FolderLabels],
        broken_files: BrokenFileLimit,
        may_shrink: bool,
    ) -> None:
        """Decode missing images, and assign each good image to its split."""
        cached: CachedImages | None = None
        cache = self.cache
        if cache:
            cached = cache.update(files, broken_files, may_shrink)
            records: Mapping[str, CacheRecord | Content] = cached.records
        else:
            records = check_files(self.root, files, self.decoder, broken_files, self.num_threads)
        digests = {path: record.digest for path, record in records.items()}
        self.traits = {path: record.traits for path, record in records.items()}
        division = self._divide(labels, list(digests))
        class_names = sorted({labels[path].class_name for path in digests})
        class_indices = {name: i for i, name in enumerate(class_names)}
        self.class_names = class_names if any(class_names) else None
        self.paths = {name: [] for name in SPLIT_NAMES}
        # Sorting by content hash makes the first images of a split a random sample of its classes.
        for path, digest in sorted(digests.items(), key=lambda item: (item[1], item[0])):
            split = labels[path].split
            if split is None or split == "train":
                split = division.assign_split(digest)
            self.paths[split].append(path)
        for name, paths in self.paths.items():
            indices = [class_indices[labels[path].class_name] for path in paths]
            classes = torch.tensor(indices, dtype=torch.long)
            images: MemmapImages | ImagesOnDemand
            if cached:
                images = cached.images(paths)
            else:
                images = ImagesOnDemand(
                    self.root, paths, classes, self.decoder, broken_files, self.num_threads
                )
            self.splits[name] = Split(images, classes, self.config.flip)
            self.images[name] = images

    def _divide(self, labels: Mapping[str, FolderLabels], paths: list[str]) -> HashDivision:
        """Return the division of the good images that no folder assigns to val or test.

        Raises:
            ValueError: There are too few images to divide them by the default fractions.
        """
        has_folder = {folder_labels.split for folder_labels in labels.values()}
        num_images = sum(labels[path].split in (None, "train") for path in paths)
        fractions = {"val": self.config.val_fraction, "test": self.config.test_fraction}
        fractions = {name: value for name, value in fractions.items() if name not in has_folder}
        if None in fractions.values() and len(paths) < MIN_IMAGES:
            raise ValueError(
                f"dataset.root={self.config.root} has too few usable images ({len(paths)}): with "
                f"fewer than {MIN_IMAGES}, scores are meaningless and a model only memorizes its "
                "training images. Add images, or set dataset.val_fraction and dataset.test_fraction"
            )
        default = default_fraction(num_images)
        self.fractions = {
            name: default if value is None else value for name, value in fractions.items()
        }
        val_fraction = self.fractions.get("val", 0.0)
        test_fraction = self.fractions.get("test", 0.0)
        return HashDivision(val_fraction, test_fraction, self.config.split_seed)

    def _check_sizes(self) -> None:
        """Raise a ValueError if a split has fewer than 2 images."""
        if min(len(paths) for paths in self.paths.values()) < 2:
            sizes = ", ".join(f"{name} {len(paths)}" for name, paths in self.paths.items())
            raise ValueError(
                f"dataset.root={self.config.root}: too few images for three splits of at least 2 "
                f"({sizes}); add images, raise dataset.val_fraction and dataset.test_fraction, or "
                "create folders train/, val/ and test/"
            )

    def _log_summary(self, layout: Layout) -> None:
        """Log the images of each split, and what is left out."""
        table = format_split_table(self.paths, layout.labels, self.fractions)
        log.info("images in %s\n%s", self.root, table)
        doubts = [layout.warning] if layout.warning else []
        doubts += describe_doubtful_traits(self.traits.values(), self.config.bit_depth)
        if not doubts:
            constant = describe_constant_images(self.images["train"])
            doubts += [constant] if constant else []
        for doubt in doubts:
            log.warning("%s: %s", self.root, doubt)
        if self.left_out:
            is_expected = all(file.reason in EXPECTED_REASONS for file in self.left_out)
            level = logging.INFO if is_expected else logging.WARNING
            log.log(level, "left out of %s: %s", self.root, summarize(self.left_out))
