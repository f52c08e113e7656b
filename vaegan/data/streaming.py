"""Images in litdata chunks, on a disk or in an object store.

For data sets that are too large for one machine. `stage=pack` writes the chunks. An item is the
class (8 bytes, little-endian) followed by the raw pixels. Reading an item executes nothing, and
chunks in any other format are rejected before the first item is read.
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
from vaegan.data.loader_processes import start_worker, wait_for_batches
from vaegan.images import ImageShape

LABEL_BYTES = 8
FLAT_SPEC: dict[str, Any] = {
    "type": None,
    "context": None,
    "children_spec": [],
}  # litdata's description of items that are not nested
INSTALL = (
    "dataset=streaming requires litdata; install it with: uv sync --extra streaming, or "
    "pip install '.[streaming]'"
)


class Streaming(NaturalImageSource):
    """Data set packed by stage=pack: chunks in the folders train, val and test of `dataset.root`.

    Every rank reads its own chunks. `image_size` and `channels` must have the values that were used
    by `stage=pack`.
    """

    @dataclass
    class Config(NaturalImageSource.Config):
        name: str = "streaming"
        # folder or URL of the chunks, such as s3://bucket/folder or gs://bucket/folder
        root: str = MISSING
        # local folder for chunks from an object store; null: the default of litdata
        cache: str | None = None
        cache_gb: float = 100.0  # maximum size of the local chunk cache in gigabytes, > 0

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.cache_gb > 0, "cache_gb", "positive", self.cache_gb)

    def prepare(self) -> Sequence[SkippedFile]:
        root = self.config.root
        if "://" not in root and not (Path(root).expanduser() / "train" / "index.json").is_file():
            raise ValueError(
                f"dataset.root={root} contains no chunks (train/index.json); create them with: "
                "python train.py stage=pack dataset=image_folder dataset.root=PATH output=FOLDER"
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
            worker_init_fn=start_worker,
        )
        return StreamedBatches(loader, epoch, batches_done)

    def fingerprint(self, train_images: ArrayLike, num_workers: int) -> int:
        """Return the number of workers, which determines the order. No images are downloaded."""
        return num_workers

    def _describe(self, split: SplitName) -> str:
        """Describe a split for error messages."""
        return f"dataset.root={self.config.root}, split {split}"

    def _open(self, split: SplitName, **options: Any) -> Any:
        """Open the litdata data set of a split.

        Raises:
            ValueError: litdata is not installed, or the chunks are missing, damaged or in another
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
            num_items = len(items)  # litdata uses the index only from here on
        except Exception as error:  # a bad index makes litdata raise many types of errors
            raise ValueError(f"{self._describe(split)}: cannot be opened ({error})") from error
        require(num_items >= 2, f"the number of images in {root}/{split}", "at least 2", num_items)
        return items


class StreamedArray:
    """Images or labels of a split, read from the chunks that contain them.

    Args:
        items: litdata data set.
        shape: Shape of an image.
        field: 0 for the images, 1 for the labels.
        description: Name of the split for error messages.
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
    """litdata loader that can resume within an epoch: it reads and discards completed batches.

    It has no state_dict: when Lightning requests the state, litdata has read one batch too many.
    """

    def __init__(self, loader: Any, epoch: int, batches_done: int) -> None:
        self.loader = loader
        self.batches_done = batches_done
        loader.current_epoch = epoch  # litdata increments it when an epoch begins

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        # Runs at the first request of a batch, not at iter(), which Lightning calls twice.
        batches_done = self.batches_done
        self.batches_done = 0
        batches = wait_for_batches(iter(self.loader), self.loader.num_workers > 0, is_training=True)
        yield from islice(batches, batches_done, None)


def check_format(index: Any) -> None:
    """Validate an untrusted litdata index.

    Raises:
        ValueError: Items are not plain bytes, so that litdata would unpickle them or, for nested
            items, import modules named in the index; or the name of a chunk is a path.
    """
    data_format = index["config"]["data_format"]
    data_spec = json.loads(index["config"]["data_spec"])[1]
    if data_format != ["bytes"] or data_spec != FLAT_SPEC:
        raise ValueError(f"refused: stage=pack did not write these items (format {data_format})")
    for chunk in index["chunks"]:
        if os.path.basename(chunk["filename"]) != chunk["filename"]:
            raise ValueError(f"refused: the chunk name {chunk['filename']!r} is a path")


def pack(image: Tensor, label: int) -> bytes:
    """Serialize an image and its label."""
    return label.to_bytes(LABEL_BYTES, "little") + image.numpy().tobytes()


def unpack(items: Sequence[bytes], shape: ImageShape) -> tuple[Tensor, Tensor]:
    """Deserialize items to images, uint8 (n, C, H, W), and labels, int64 (n,).

    Raises:
        ValueError: The size of an item does not match `shape`.
    """
    image_bytes = math.prod(shape)
    for item in items:
        num_bytes = len(item) - LABEL_BYTES
        if num_bytes != image_bytes:
            raise ValueError(
                f"dataset.image_size and dataset.channels give images of {image_bytes} bytes, but "
                f"the chunks contain images of {num_bytes} bytes; set both keys as in stage=pack"
            )
    data = torch.tensor([], dtype=torch.uint8)
    if items:  # torch.frombuffer rejects an empty buffer
        data = torch.frombuffer(bytearray(b"".join(items)), dtype=torch.uint8)
    data = data.view(len(items), LABEL_BYTES + image_bytes)
    labels, pixels = data.split([LABEL_BYTES, image_bytes], dim=1)
    return pixels.reshape(-1, *shape), labels.contiguous().view(torch.int64).flatten()
