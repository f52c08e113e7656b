"""Images in chunks, on a disk or in an object store, read by litdata.

They are for data larger than one machine. `stage=pack` writes them. An item is the class (8
bytes, little-endian) followed by the raw pixels: reading one executes nothing, and a store of any
other format is refused before its first item is read.
"""

from __future__ import annotations

import functools
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
from vaegan.data.dataset import ArrayLike, NaturalImageSource, Split, SplitName
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape
from vaegan.runtime.signals import ignore_signals

LABEL_BYTES = 8
FLAT_SPEC: dict[str, Any] = {
    "type": None,
    "context": None,
    "children_spec": [],
}  # litdata's, of unnested items
INSTALL = "dataset=streaming needs litdata: pip install 'vaegan[streaming]'"


class Streaming(NaturalImageSource):
    """Three folders of chunks, `train`, `val` and `test`, in `dataset.root`.

    Every rank and node reads its own chunks. `image_size` and `channels` are those that were
    written.
    """

    @dataclass
    class Config(NaturalImageSource.Config):
        name: str = "streaming"
        root: str = MISSING  # folder or address, such as s3://bucket/folder or gs://bucket/folder
        cache: str | None = None  # folder for chunks from an object store; null: litdata's
        cache_gb: float = 100.0  # maximum size of that folder

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.cache_gb > 0, "cache_gb", "positive", self.cache_gb)

    def prepare(self) -> Sequence[SkippedFile]:
        root = self.config.root
        if "://" not in root and not (Path(root).expanduser() / "train" / "index.json").is_file():
            raise ValueError(
                f"dataset.root={root} holds no chunks (train/index.json); to make them: python "
                "train.py stage=pack dataset=image_folder dataset.root=PATH output=FOLDER"
            )
        return []

    def split(self, name: SplitName) -> Split:
        items = self._open(name)
        images = StreamedArray(items, self.image_shape, 0, self._describe(name))
        labels = StreamedArray(items, self.image_shape, 1, self._describe(name))
        return Split(images, labels)

    def train_loader(
        self, batch_size: int, num_workers: int, seed: int, epoch: int, batches_done: int
    ) -> StreamedBatches:
        from litdata import StreamingDataLoader

        loader = StreamingDataLoader(
            self._open("train", shuffle=True, drop_last=True, seed=seed),
            batch_size=batch_size,
            num_workers=num_workers,
            drop_last=True,
            collate_fn=functools.partial(unpack, shape=self.image_shape),
            worker_init_fn=ignore_signals,
        )
        return StreamedBatches(loader, epoch, batches_done)

    def fingerprint(self, train_images: ArrayLike, num_workers: int) -> int:
        """Return the number of workers, which decides the order; images are not downloaded."""
        return num_workers

    def _describe(self, split: SplitName) -> str:
        return f"dataset.root={self.config.root}, split {split}"

    def _open(self, split: SplitName, **options: Any) -> Any:
        """Open litdata's data set of a split.

        Raises:
            ValueError: litdata is not installed, or the chunks are missing, damaged, or of another
                format.
        """
        try:
            from litdata import StreamingDataset
        except ImportError as error:
            raise ValueError(INSTALL) from error
        root = self.config.root
        root = root.rstrip("/") if "://" in root else str(Path(root).expanduser().resolve())
        max_size = f"{self.config.cache_gb}GB"
        try:
            items = StreamingDataset(
                f"{root}/{split}", self.config.cache, max_cache_size=max_size, **options
            )
            check_format(json.loads(Path(items.input_dir.path, "index.json").read_text()))
            num_items = len(items)  # only now does litdata act on the index
        except Exception as error:  # litdata raises many kinds of errors for a bad index
            raise ValueError(f"{self._describe(split)}: cannot be opened ({error})") from error
        require(num_items >= 2, f"the number of images in {root}/{split}", "at least 2", num_items)
        return items


class StreamedArray:
    """Images or labels of a split, read from the chunks that contain them.

    Args:
        items: litdata's data set.
        shape: Shape of an image.
        field: 0 for the images, 1 for the labels.
        description: Name of the split, for messages.
    """

    def __init__(self, items: Any, shape: ImageShape, field: int, description: str) -> None:
        self.items = items
        self.shape = shape
        self.field = field
        self.description = description

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        indices = torch.arange(len(self))[index].tolist()
        try:
            items = [self.items[i] for i in indices]
        except Exception as error:  # as in Streaming._open
            message = f"{self.description}: a chunk is damaged or unavailable ({error})"
            raise ValueError(message) from error
        return unpack(items, self.shape)[self.field]


class StreamedBatches:
    """Loader of litdata that resumes in an epoch: it reads and discards the batches already done.

    It saves no state: when Lightning asks for litdata's, one batch too many has been read.
    """

    def __init__(self, loader: Any, epoch: int, batches_done: int) -> None:
        self.loader = loader
        self.batches_done = batches_done
        loader.current_epoch = epoch  # litdata increments it when an epoch begins

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Runs when the first batch is requested: Lightning calls iter() twice.
        batches_done = self.batches_done
        self.batches_done = 0
        yield from islice(iter(self.loader), batches_done, None)


def check_format(index: Any) -> None:
    """Validate the untrusted index of a store.

    Raises:
        ValueError: Items are not plain bytes (litdata would unpickle them, or import modules named
            in the description of nested ones), or the name of a chunk is a path.
    """
    data_format = index["config"]["data_format"]
    data_spec = json.loads(index["config"]["data_spec"])[1]
    if data_format != ["bytes"] or data_spec != FLAT_SPEC:
        raise ValueError(f"its items are {data_format}, not what stage=pack writes: refused")
    for chunk in index["chunks"]:
        if os.path.basename(chunk["filename"]) != chunk["filename"]:
            raise ValueError(f"its index names a chunk {chunk['filename']!r} elsewhere: refused")


def pack(image: Tensor, label: int) -> bytes:
    """Serialize an image and its label."""
    return label.to_bytes(LABEL_BYTES, "little") + image.numpy().tobytes()


def unpack(items: Sequence[bytes], shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Return the images, uint8 (n, C, H, W), and labels, int64 (n,), of serialized items.

    Raises:
        ValueError: An item has another size than images of `shape`.
    """
    image_bytes = math.prod(shape)
    expected = f"{image_bytes}, which is {shape} (channels, height, width), as they were written"
    for item in items:
        num_bytes = len(item) - LABEL_BYTES
        key = "dataset.image_size and dataset.channels"
        require(num_bytes == image_bytes, key, expected, num_bytes)
    data = torch.tensor([], dtype=torch.uint8)
    if items:  # an empty buffer is refused
        data = torch.frombuffer(bytearray(b"".join(items)), dtype=torch.uint8)
    data = data.view(len(items), LABEL_BYTES + image_bytes)
    labels, pixels = data.split([LABEL_BYTES, image_bytes], dim=1)
    return pixels.reshape(-1, *shape), labels.contiguous().view(torch.int64).flatten()
