"""A folder of pictures of any format and size: flat, with a folder for each class, with or without train/ and val/."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from omegaconf import MISSING

from vaegan.config import cache_home, require
from vaegan.data.datasets import ImageSource, Rows, Split, SplitName
from vaegan.data.decoding import MAX_PIXELS, SUFFIXES, Decoder
from vaegan.data.on_demand import ImagesOnDemand, digests
from vaegan.data.picture_cache import PictureCache, Record
from vaegan.data.reading import Tally
from vaegan.data.scanning import PictureFile, Place, Skipped, places, scan
from vaegan.images import ImageShape

log = logging.getLogger(__name__)
FORMAT = 1  # of the cache: a change of it, or of what a decoder makes of a file, starts a new one
MARGIN = 8  # crop=random keeps pictures larger than the crop, by an eighth


class Member(NamedTuple):
    """A picture of a split."""

    path: str
    label: int
    record: Record | None  # of the cache; None without one


class ImageFolder(ImageSource):
    """Pictures below `dataset.root`, decoded once into a cache at the size of the training.

    Folders directly below it are classes; where these are called train/ and val/ or test/, they are splits, and the
    folders in them classes. A split that has no folder is taken from the other pictures by a hash of their content:
    it stays the same when pictures are added or renamed, and equal ones are never in two splits.
    """

    LIKELIHOOD: ClassVar[str] = "gaussian"

    @dataclass
    class Config(ImageSource.Config):
        name: str = "image_folder"
        root: str = MISSING  # folder of the pictures
        image_size: Any = 64  # pixels: a number, or [height, width]
        channels: int = 3  # 3 colour, 1 grey
        crop: str = "center"  # center, random (in training), or none: stretched to the size, all of it seen
        flip: bool = False  # whether training mirrors half of the pictures, another half each time
        background: list[int] = field(default_factory=lambda: [255, 255, 255])  # of transparent ones: red, green, blue
        max_pixels: int = 80_000_000  # of a picture in its file: larger ones are not decoded
        on_error: str = "skip"  # what a broken file does: skip, or fail
        max_broken: float = 0.1  # share of the files that may be skipped
        val_fraction: float = 0.1  # share of the pictures that validate, where there is no folder val/
        test_fraction: float = 0.1  # share that tests, where there is no folder test/
        split_seed: int = 0  # of that division
        cache: str | None = "auto"  # folder of the decoded pictures; auto: in ~/.cache/vaegan; null: decode at each use
        num_threads: int | None = None  # that decode at once; null: one for each core

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = "a number of pixels, at least 4, or [height, width]"
            require(is_size(self.image_size), "image_size", expected, self.image_size)
            require(self.channels in (1, 3), "channels", "1 (grey) or 3 (colour)", self.channels)
            require(self.crop in ("center", "random", "none"), "crop", "center, random or none", self.crop)
            is_colour = len(self.background) == 3 and all(0 <= level <= 255 for level in self.background)
            require(is_colour, "background", "three levels of 0 to 255", self.background)
            require(1 <= self.max_pixels <= MAX_PIXELS, "max_pixels", f"in 1 to {MAX_PIXELS}", self.max_pixels)
            require(self.on_error in ("skip", "fail"), "on_error", "skip or fail", self.on_error)
            require(0 <= self.max_broken <= 1, "max_broken", "in [0, 1]", self.max_broken)
            for key in ("val_fraction", "test_fraction"):
                require(0 < getattr(self, key) < 1, key, "in (0, 1)", getattr(self, key))
            total = self.val_fraction + self.test_fraction
            require(total < 1, "val_fraction + dataset.test_fraction", "less than 1", total)
            threads = self.num_threads
            require(threads is None or threads >= 1, "num_threads", "at least 1, or null", threads)

    def __init__(self, config: Config) -> None:
        self.config = config
        self.members: dict[str, list[Member]] = {}
        self.tally = Tally(0, 0.0, False)

    @property
    def image_shape(self) -> ImageShape:
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return (self.config.channels, height, width)

    @property
    def root(self) -> Path:
        """Folder of the pictures."""
        return Path(self.config.root).expanduser()

    @property
    def num_threads(self) -> int:
        """That decode at once."""
        return self.config.num_threads or os.cpu_count() or 1

    @property
    def decoder(self) -> Decoder:
        """What becomes of each file."""
        config, (channels, height, width) = self.config, self.image_shape
        if config.crop == "random":
            height, width = height + -(-height // MARGIN), width + -(-width // MARGIN)
        red, green, blue = config.background
        return Decoder(channels, height, width, config.crop != "none", (red, green, blue), config.max_pixels)

    @property
    def cache(self) -> PictureCache | None:
        """Of this folder with these settings."""
        if self.config.cache is None:
            return None
        home = cache_home() / "pictures" if self.config.cache == "auto" else Path(self.config.cache).expanduser()
        settings = [FORMAT, str(self.root.resolve()), dataclasses.asdict(self.decoder)]
        key = hashlib.blake2b(json.dumps(settings).encode(errors="surrogateescape"), digest_size=12).hexdigest()
        return PictureCache(home / key, self.root, self.decoder)

    def prepare(self) -> list[Skipped]:
        if not self.root.is_dir():
            raise ValueError(f"dataset.root={self.config.root} is no folder; set it to the folder of your pictures")
        files, unseen = scan(self.root)
        if not files and not unseen:
            kinds = ", ".join(sorted(SUFFIXES))
            raise ValueError(f"dataset.root={self.config.root}: no file in it has a picture's name ({kinds})")
        self.tally = Tally(len(files) + len(unseen), self.config.max_broken, self.config.on_error == "fail")
        for skipped in unseen:
            self.tally.skip(skipped)
        where = {file.path: place for file, place in zip(files, places([file.path for file in files]), strict=True)}
        self.members = self._divide([file for file in files if where[file.path] is not None], where)
        self._check_sizes(num_outside=sum(place is None for place in where.values()))
        return self.tally.skipped

    def split(self, name: SplitName) -> Split:
        if not self.members:
            self.prepare()
        members = self.members[name]
        labels = torch.tensor([member.label for member in members], dtype=torch.long)
        return Split(self._images(members), labels, self.config.flip)

    def _images(self, members: list[Member]) -> Rows:
        if self.cache:
            return self.cache.images([member.record for member in members if member.record])
        paths = [member.path for member in members]
        return ImagesOnDemand(self.root, paths, self.decoder, self.tally, self.num_threads)

    def _divide(self, files: list[PictureFile], where: dict[str, Place | None]) -> dict[str, list[Member]]:
        """Decode what is to be decoded, and put every good picture into its split."""
        records: dict[str, Record] = {}
        if self.cache:
            records = self.cache.update(files, self.tally, self.num_threads)
            hashes = {path: record.digest for path, record in records.items()}
        else:
            hashes = digests(self.root, files, self.decoder, self.tally, self.num_threads)
        good = {path: place for path in hashes if (place := where[path])}
        given = {place.split for place in good.values()}
        classes = {name: label for label, name in enumerate(sorted({place.class_name for place in good.values()}))}
        members: dict[str, list[Member]] = {"train": [], "val": [], "test": []}
        for path, place in good.items():
            split = place.split
            if split in (None, "train"):
                split = self._split_of(hashes[path], "val" in given, "test" in given)
            members[split or "train"].append(Member(path, classes[place.class_name], records.get(path)))
        return members

    def _split_of(self, digest: bytes, has_val: bool, has_test: bool) -> str:
        """Where a picture belongs that no folder says it of."""
        key = self.config.split_seed.to_bytes(8, "big", signed=True)
        place = int.from_bytes(hashlib.blake2b(digest, key=key, digest_size=8).digest(), "big") / 2**64
        for name, fraction, is_given in (
            ("val", self.config.val_fraction, has_val),
            ("test", self.config.test_fraction, has_test),
        ):
            if is_given:
                continue
            if place < fraction:
                return name
            place -= fraction
        return "train"

    def _check_sizes(self, num_outside: int) -> None:
        """Raise a ValueError where there is nothing to train on."""
        sizes = {name: len(members) for name, members in self.members.items()}
        if min(sizes.values()) < 2:
            found = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(
                f"dataset.root={self.config.root}: too few pictures for three splits of at least 2 ({found}); add "
                "pictures, raise dataset.val_fraction and dataset.test_fraction, or make folders train/, val/ and test/"
            )
        if num_outside:
            log.warning(
                "%d pictures in %s lie outside of train/, val/ and test/, and are not used", num_outside, self.root
            )


def is_size(size: object) -> bool:
    """Whether it is a number of pixels or a list of two."""
    sizes = size if isinstance(size, list) and len(size) == 2 else [size]
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 4 for n in sizes)
