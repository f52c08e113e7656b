"""Pictures in chunks, on a disk or in an object store, read by litdata: for sets that are larger than one machine.

`python train.py stage=optimize` writes them. An item is the class (8 bytes, little-endian) and then the pixels, as they
are: reading one executes nothing, and a store of any other format is refused before its first item is read.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor

from vaegan.config import require
from vaegan.data.dataset import NaturalImageSource, Split, SplitName
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape
from vaegan.runtime.signals import ignore_signals

LABEL_BYTES = 8
LEAF: dict[str, Any] = {
    "type": None,
    "context": None,
    "children_spec": [],
}  # how litdata describes what is not nested
INSTALL = "dataset=streaming needs litdata: pip install 'vaegan[streaming]'"


class Streaming(NaturalImageSource):
    """Three folders of chunks, `train`, `val` and `test`, below `dataset.root`.

    Every rank and node of a training reads chunks of its own. `image_size` and `channels` are those that were written.
    """

    @dataclass
    class Config(NaturalImageSource.Config):
        name: str = "streaming"
        root: str = (
            MISSING  # a folder, or an address such as s3://bucket/folder or gs://bucket/folder
        )
        cache: str | None = None  # folder for chunks that come from a store; null: litdata's
        cache_gb: float = 100.0  # size that it may have

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.cache_gb > 0, "cache_gb", "positive", self.cache_gb)

    def prepare(self) -> Sequence[SkippedFile]:
        root = self.config.root
        if "://" not in root and not (Path(root).expanduser() / "train" / "index.json").is_file():
            raise ValueError(
                f"dataset.root={root} holds no chunks (train/index.json); to make them: python train.py stage=optimize "
                "dataset=image_folder dataset.root=PATH output=FOLDER"
            )
        return []

    def split(self, name: SplitName) -> Split:
        images = StreamedImages(self.config, name, self.image_shape)
        return Split(images, StreamedLabels(images))


class StreamedImages:
    """One split: `images[which]` is uint8 (n, C, H, W), read from the chunks that hold them."""

    def __init__(self, config: Any, split: str, shape: ImageShape) -> None:
        self.config, self.split, self.shape = config, split, shape
        self.where = f"dataset.root={config.root}, split {split}"
        self.items = self.open()

    def open(self, **options: Any) -> Any:
        """litdata's data set of the split.

        Raises:
            ValueError: litdata is not there, or the chunks are not, or not of our format.
        """
        try:
            from litdata import StreamingDataset
        except ImportError as error:
            raise ValueError(INSTALL) from error
        root, size = self.config.root, f"{self.config.cache_gb}GB"
        where = root.rstrip("/") if "://" in root else str(Path(root).expanduser().resolve())
        try:
            items = StreamingDataset(
                f"{where}/{self.split}", self.config.cache, max_cache_size=size, **options
            )
            check_format(json.loads(Path(items.input_dir.path, "index.json").read_text()))
            num_items = len(items)  # from here on litdata does what the index says
        except Exception as error:  # litdata raises whatever occurs to it when an index is bad
            raise ValueError(f"{self.where}: cannot be opened ({error})") from error
        require(
            num_items >= 2, f"the number of images in {where}/{self.split}", "at least 2", num_items
        )
        return items

    def loader(
        self, batch_size: int, num_workers: int, seed: int, done: tuple[int, int] = (0, 0)
    ) -> StreamedBatches:
        """Batches of this rank in an order that is f(seed, epoch).

        Args:
            done: Finished epochs, and batches of the next one that are not wanted again.
        """
        from litdata import StreamingDataLoader

        items = self.open(shuffle=True, drop_last=True, seed=seed)
        loader = StreamingDataLoader(
            items,
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=True,
            collate_fn=self.unpack,
            worker_init_fn=ignore_signals,
        )
        return StreamedBatches(loader, *done)

    def unpack(self, items: Sequence[bytes]) -> tuple[Tensor, Tensor]:
        """Images and labels.

        Raises:
            ValueError: An item has another size than these images have.
        """
        size = LABEL_BYTES + math.prod(self.shape)
        for item in items:
            expected = f"{size - LABEL_BYTES}, which is {self.shape} (channels, height, width), as they were written"
            require(
                len(item) == size,
                "dataset.image_size and dataset.channels",
                expected,
                len(item) - LABEL_BYTES,
            )
        data = torch.frombuffer(bytearray(b"".join(items)), dtype=torch.uint8).view(-1, size)
        labels, pixels = data.split([LABEL_BYTES, size - LABEL_BYTES], dim=1)
        return pixels.reshape(-1, *self.shape), labels.contiguous().view(torch.int64).flatten()

    def read(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images and labels of these indices."""
        indices = torch.arange(len(self))[which].tolist()
        if not indices:
            return torch.empty(0, *self.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.long)
        try:
            items = [self.items[index] for index in indices]
        except Exception as error:  # as above
            raise ValueError(
                f"{self.where}: a chunk is damaged or cannot be had ({error})"
            ) from error
        return self.unpack(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.read(which)[0]


class StreamedBatches:
    """A loader of litdata that begins in an epoch, after some of its batches: these are read again, and passed over.

    It has no state of its own to save: by the time that Lightning asks for litdata's, one batch too many is read.
    """

    def __init__(self, loader: Any, epoch: int, num_done: int) -> None:
        self.loader, self.num_done = loader, num_done
        loader.current_epoch = epoch  # litdata counts one further when it begins

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        num_done, self.num_done = (
            self.num_done,
            0,
        )  # not before a batch is asked for: Lightning calls iter() twice
        yield from islice(iter(self.loader), num_done, None)


class StreamedLabels:
    """The classes of the same items: `labels[which]` is int64 (n,)."""

    def __init__(self, images: StreamedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.images.read(which)[1]


def check_format(index: Any) -> None:
    """What the index of a store says is believed only so far as it cannot do harm.

    Raises:
        ValueError: Items are no plain bytes (litdata would execute pickled ones, and import what the description of
            nested ones names), or a chunk's name is a path.
    """
    data_format = index["config"]["data_format"]
    if data_format != ["bytes"] or json.loads(index["config"]["data_spec"])[1] != LEAF:
        raise ValueError(
            f"its items are {data_format}, and not what stage=optimize writes: refused"
        )
    for chunk in index["chunks"]:
        if os.path.basename(chunk["filename"]) != chunk["filename"]:
            raise ValueError(f"its index names a chunk {chunk['filename']!r} elsewhere: refused")


def pack(image: Tensor, label: int) -> bytes:
    """One item."""
    return label.to_bytes(LABEL_BYTES, "little") + image.numpy().tobytes()
