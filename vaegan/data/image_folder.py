"""A folder of pictures of any format and size: flat, with a folder for each class, with or without train/ and val/."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.dataset import ArrayLike, NaturalImageSource, Split, SplitName
from vaegan.data.images.decoding import MAX_PIXELS, SUFFIXES, Decoder
from vaegan.data.images.image_cache import ImageCache
from vaegan.data.images.on_demand import ImagesOnDemand, digests
from vaegan.data.images.reading import BrokenFileLimit, num_cores
from vaegan.data.images.scanning import ImageFile, Place, SkippedFile, places, scan
from vaegan.runtime.paths import cache_home

log = logging.getLogger(__name__)
FORMAT = 2  # of the cache: a change of it, or of what a decoder makes of a file, starts a new one
MARGIN = 8  # crop=random keeps pictures larger than the crop, by an eighth


class ImageFolder(NaturalImageSource):
    """Pictures below `dataset.root`, decoded once into a cache at the size of the training.

    Folders directly below it are classes; where these are called train/ and val/ or test/, they are splits, and the
    folders in them classes. A split that has no folder is taken from the other pictures by a hash of their content:
    it stays the same when pictures are added or renamed, and equal ones are never in two splits.
    """

    @dataclass
    class Config(NaturalImageSource.Config):
        name: str = "image_folder"
        root: str = MISSING  # folder of the pictures
        crop: str = (
            "center"  # center, random (in training), or none: stretched to the size, all of it seen
        )
        flip: bool = False  # whether training mirrors half of the pictures, another half each time
        background: list[int] = field(
            default_factory=lambda: [255, 255, 255]
        )  # of transparent ones: red, green, blue
        max_pixels: int = 80_000_000  # of a picture in its file: larger ones are not decoded
        on_error: str = "skip"  # what a broken file does: skip, or fail
        max_broken: float = 0.1  # share of the files that may be skipped
        val_fraction: float = (
            0.1  # share of the pictures that validate, where there is no folder val/
        )
        test_fraction: float = 0.1  # share that tests, where there is no folder test/
        split_seed: int = 0  # of that division
        cache: str | None = (
            "auto"  # folder of the decoded pictures; auto: in ~/.cache/vaegan; null: decode at each use
        )
        num_threads: int | None = None  # that decode at once; null: one for each core

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.root != "", "root", "the folder of the pictures", self.root)
            if self.root != MISSING:
                self.root = os.path.abspath(
                    os.path.expanduser(self.root)
                )  # a GAN may be trained from elsewhere
            require(
                self.crop in ("center", "random", "none"),
                "crop",
                "center, random or none",
                self.crop,
            )
            is_colour = len(self.background) == 3 and all(
                0 <= level <= 255 for level in self.background
            )
            require(is_colour, "background", "three levels of 0 to 255", self.background)
            require(
                1 <= self.max_pixels <= MAX_PIXELS,
                "max_pixels",
                f"in 1 to {MAX_PIXELS}",
                self.max_pixels,
            )
            require(self.on_error in ("skip", "fail"), "on_error", "skip or fail", self.on_error)
            require(0 <= self.max_broken <= 1, "max_broken", "in [0, 1]", self.max_broken)
            for key in ("val_fraction", "test_fraction"):
                require(0 < getattr(self, key) < 1, key, "in (0, 1)", getattr(self, key))
            total = self.val_fraction + self.test_fraction
            require(total < 1, "val_fraction + dataset.test_fraction", "less than 1", total)
            threads = self.num_threads
            require(threads is None or threads >= 1, "num_threads", "at least 1, or null", threads)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.root = Path(config.root)
        self.splits: dict[str, Split] = {}
        self.paths: dict[str, list[str]] = {
            "train": [],
            "val": [],
            "test": [],
        }  # of the pictures, in order

    @property
    def num_threads(self) -> int:
        """That decode at once."""
        return self.config.num_threads or num_cores()

    @property
    def decoder(self) -> Decoder:
        """What becomes of each file."""
        config, (channels, height, width) = self.config, self.image_shape
        if config.crop == "random":
            height, width = height + -(-height // MARGIN), width + -(-width // MARGIN)
        red, green, blue = config.background
        return Decoder(
            channels, height, width, config.crop != "none", (red, green, blue), config.max_pixels
        )

    @property
    def cache(self) -> ImageCache | None:
        """Of this folder with these settings."""
        if self.config.cache is None:
            return None
        home = (
            cache_home() / "pictures"
            if self.config.cache == "auto"
            else Path(self.config.cache).expanduser()
        )
        settings = [FORMAT, str(self.root.resolve()), dataclasses.asdict(self.decoder)]
        key = hashlib.blake2b(
            json.dumps(settings).encode(errors="surrogateescape"), digest_size=12
        ).hexdigest()
        return ImageCache(home / key, self.root, self.decoder, self.num_threads)

    def prepare(self) -> list[SkippedFile]:
        if not self.root.is_dir():
            raise ValueError(
                f"dataset.root={self.config.root} is no folder; set it to the folder of your pictures (for a trained "
                "model: dataset=image_folder dataset.root=... and the other keys of dataset as they were)"
            )
        files, unseen = scan(self.root)
        if not files and not unseen:
            kinds = ", ".join(sorted(SUFFIXES))
            raise ValueError(
                f"dataset.root={self.config.root}: no file in it has a picture's name ({kinds})"
            )
        broken_files = BrokenFileLimit(
            len(files) + len(unseen), self.config.max_broken, self.config.on_error == "fail"
        )
        for skipped in unseen:
            broken_files.skip(skipped)
        found = places([file.path for file in files])
        where = {file.path: place for file, place in zip(files, found, strict=True) if place}
        self._open(
            [file for file in files if file.path in where],
            where,
            broken_files,
            may_shrink=not unseen,
        )
        self._check_sizes(num_outside=len(files) - len(where))
        return broken_files.skipped

    def split(self, name: SplitName) -> Split:
        if not self.splits:
            self.prepare()
        return self.splits[name]

    def _open(
        self,
        files: list[ImageFile],
        where: dict[str, Place],
        broken_files: BrokenFileLimit,
        may_shrink: bool,
    ) -> None:
        """Decode what is to be decoded, and put every good picture into its split."""
        cached = self.cache.update(files, broken_files, may_shrink) if self.cache else None
        if cached:
            hashes = {path: record.digest for path, record in cached.records.items()}
        else:
            hashes = digests(self.root, files, self.decoder, broken_files, self.num_threads)
        given = {place.split for place in where.values()}
        names = sorted({where[path].class_name for path in hashes})
        classes = {name: label for label, name in enumerate(names)}
        self.paths = {"train": [], "val": [], "test": []}
        for path, digest in hashes.items():
            split = where[path].split
            self.paths[self._split_of(digest, given) if split in (None, "train") else split].append(
                path
            )
        for name, paths in self.paths.items():
            labels = torch.tensor(
                [classes[where[path].class_name] for path in paths], dtype=torch.long
            )
            images: ArrayLike
            if cached:
                images = cached.images(paths)
            else:
                images = ImagesOnDemand(
                    self.root, paths, labels, self.decoder, broken_files, self.num_threads
                )
            self.splits[name] = Split(images, labels, self.config.flip)

    def _split_of(self, digest: bytes, given: set[str | None]) -> str:
        """Where a picture belongs that no folder says it of: the lowest hashes validate, the highest ones test."""
        key = str(self.config.split_seed).encode()
        place = (
            int.from_bytes(hashlib.blake2b(digest, key=key, digest_size=8).digest(), "big") / 2**64
        )
        if place < self.config.val_fraction and "val" not in given:
            return "val"
        if place >= 1 - self.config.test_fraction and "test" not in given:
            return "test"
        return "train"

    def _check_sizes(self, num_outside: int) -> None:
        """Raise a ValueError where there is nothing to train on."""
        sizes = {name: len(paths) for name, paths in self.paths.items()}
        if min(sizes.values()) < 2:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(
                f"dataset.root={self.config.root}: too few pictures for three splits of at least 2 ({found}); add "
                "pictures, raise dataset.val_fraction and dataset.test_fraction, or make folders train/, val/ and test/"
            )
        log.info("pictures: %s", ", ".join(f"{name} {size}" for name, size in sizes.items()))
        if num_outside:
            log.warning(
                "%d pictures in %s lie outside of train/, val/ and test/, and are not used",
                num_outside,
                self.root,
            )
