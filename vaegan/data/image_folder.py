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
from vaegan.data.dataset import SPLIT_NAMES, ArrayLike, NaturalImageSource, Split, SplitName
from vaegan.data.images.decoding import MAX_PIXELS, SUFFIXES, ImageDecoder
from vaegan.data.images.image_cache import CachedImages, ImageCache
from vaegan.data.images.on_demand import ImagesOnDemand, hash_files
from vaegan.data.images.reading import BrokenFileLimit, count_usable_cores
from vaegan.data.images.scanning import FolderLabels, ImageFile, SkippedFile, label_by_folders, scan
from vaegan.runtime.paths import cache_home

log = logging.getLogger(__name__)
CACHE_FORMAT = 3  # increase when the decoder or the cache layout changes: starts new caches
CROP_MARGIN = 8  # crop=random stores images that are larger than the crop by one eighth


class ImageFolder(NaturalImageSource):
    """Image files below `dataset.root`, decoded once into a cache at the training resolution.

    Folders directly below the root are classes. If they include train/ and val/ or test/, or are
    only train/, they are splits instead, and the folders in them are classes. Images for a split
    without a folder are taken from the training images by a hash of their content. An image
    therefore keeps its split when images are added or renamed, and identical images are never in
    two of these splits.
    """

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
        # what to do with broken image files: skip them, or fail at the first one
        on_error: str = "skip"
        max_broken: float = 0.1  # maximum fraction of files that may be skipped, in [0, 1]
        # fraction of the images used for validation if there is no folder val/, in (0, 1)
        val_fraction: float = 0.1
        # fraction of the images used for testing if there is no folder test/, in (0, 1)
        test_fraction: float = 0.1
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
            require(self.on_error in ("skip", "fail"), "on_error", "skip or fail", self.on_error)
            require(0 <= self.max_broken <= 1, "max_broken", "in [0, 1]", self.max_broken)
            for key in ("val_fraction", "test_fraction"):
                require(0 < getattr(self, key) < 1, key, "in (0, 1)", getattr(self, key))
            total = self.val_fraction + self.test_fraction
            require(total < 1, "val_fraction + dataset.test_fraction", "less than 1", total)
            threads = self.num_threads
            require(threads is None or threads >= 1, "num_threads", "at least 1, or null", threads)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.root = Path(config.root)
        self.num_threads = config.num_threads or count_usable_cores()
        self.paths: dict[str, list[str]] = {}  # image paths of each split, in order
        self.splits: dict[str, Split] = {}

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
            channels, height, width, keeps_ratio, background, self.config.max_pixels
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
                "images (also for a trained model, whose images have moved)"
            )
        files, unreadable = scan(self.root)
        num_files = len(files) + len(unreadable)
        if not num_files:
            suffixes = ", ".join(sorted(SUFFIXES))
            raise ValueError(
                f"dataset.root={self.config.root} contains no image files ({suffixes})"
            )
        fail_fast = self.config.on_error == "fail"
        broken_files = BrokenFileLimit(num_files, self.config.max_broken, fail_fast)
        for skipped in unreadable:
            broken_files.skip(skipped)
        paths = [file.path for file in files]
        labels = {}
        for path, folder_labels in zip(paths, label_by_folders(paths), strict=True):
            if folder_labels:
                labels[path] = folder_labels
        used = [file for file in files if file.path in labels]
        self._make_splits(used, labels, broken_files, may_shrink=not unreadable)
        self._check_sizes(num_outside=len(files) - len(used))
        return broken_files.skipped

    def split(self, name: SplitName) -> Split:
        if not self.splits:
            self.prepare()
        return self.splits[name]

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
            digests = {path: record.digest for path, record in cached.records.items()}
        else:
            digests = hash_files(self.root, files, self.decoder, broken_files, self.num_threads)
        split_folders = {folder_labels.split for folder_labels in labels.values()}
        class_names = sorted({labels[path].class_name for path in digests})
        class_indices = {name: i for i, name in enumerate(class_names)}
        self.paths = {name: [] for name in SPLIT_NAMES}
        for path, digest in digests.items():
            split = labels[path].split
            if split is None or split == "train":
                split = self._assign_split(digest, split_folders)
            self.paths[split].append(path)
        for name, paths in self.paths.items():
            classes = torch.tensor(
                [class_indices[labels[path].class_name] for path in paths], dtype=torch.long
            )
            images: ArrayLike
            if cached:
                images = cached.images(paths)
            else:
                images = ImagesOnDemand(
                    self.root, paths, classes, self.decoder, broken_files, self.num_threads
                )
            self.splits[name] = Split(images, classes, self.config.flip)

    def _assign_split(self, digest: bytes, split_folders: set[str | None]) -> str:
        """Assign a split by content hash: the lowest hashes to val, the highest to test."""
        key = str(self.config.split_seed).encode()
        keyed_digest = hashlib.blake2b(digest, key=key, digest_size=8).digest()
        position = int.from_bytes(keyed_digest, "big") / 2**64
        if position < self.config.val_fraction and "val" not in split_folders:
            return "val"
        if position >= 1 - self.config.test_fraction and "test" not in split_folders:
            return "test"
        return "train"

    def _check_sizes(self, num_outside: int) -> None:
        """Log the size of each split; raise a ValueError if one has fewer than 2 images."""
        sizes = ", ".join(f"{name} {len(paths)}" for name, paths in self.paths.items())
        if min(len(paths) for paths in self.paths.values()) < 2:
            raise ValueError(
                f"dataset.root={self.config.root}: too few images for three splits of at least 2 "
                f"({sizes}); add images, raise dataset.val_fraction and dataset.test_fraction, or "
                "create folders train/, val/ and test/"
            )
        log.info("images: %s", sizes)
        if num_outside:
            log.warning(
                "%d images in %s are outside of train/, val/ and test/, and are not used",
                num_outside,
                self.root,
            )
