"""Reader of IDX, the file format of MNIST, and the base class of data sets in this format.

torchvision's classes are only used to download files: they neither read compressed files in place
nor verify the content of the files that they read.
"""

from __future__ import annotations

import abc
import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName, train_or_val_split
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape
from vaegan.runtime.downloads import download_timeout

IMAGES = "images-idx3-ubyte"
LABELS = "labels-idx1-ubyte"


def read_idx(path: Path, sha256: str | None = None) -> Tensor:
    """Read an IDX file of unsigned bytes. A file whose name ends in .gz is decompressed.

    Args:
        path: The file.
        sha256: Expected hexadecimal SHA-256 of the decompressed content; None to skip the check.

    Returns:
        The values, uint8, in the shape that the header gives.

    Raises:
        ValueError: The file is missing, truncated or damaged, or not an IDX file of unsigned
            bytes.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"data file {path} is truncated or damaged ({error}); download it again"
        ) from error
    except OSError as error:
        raise ValueError(
            f"data file {path} cannot be read ({error.strerror}); check it, or set dataset.root"
        ) from error
    if sha256 and hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(
            f"data file {path} is damaged: the SHA-256 of its content is not {sha256}; download "
            "it again"
        )
    is_bytes = raw[:3] == b"\0\0\x08"  # two zeros, then the type code of unsigned bytes
    num_dims = raw[3] if is_bytes and len(raw) > 3 else 0
    header_size = 4 + 4 * num_dims
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, header_size, 4)]
    if num_dims == 0 or len(raw) - header_size != torch.Size(shape).numel():
        raise ValueError(
            f"data file {path} is not an IDX file of unsigned bytes, or its size does not match "
            "its header; download it again"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header_size).reshape(shape)


class IdxSource(ImageSource, abc.ABC):
    """Grayscale 28 x 28 images in four IDX files, with or without gzip compression.

    Files are read from `dataset.root`. Missing files are downloaded there by a torchvision class.
    """

    SHA256: ClassVar[dict[str, str]] = {}  # by file name, of the decompressed content
    DEFAULT_ROOT: ClassVar[str | None] = "data"
    TORCHVISION_CLASS: ClassVar[str] = ""  # name in torchvision.datasets
    IS_TRANSPOSED: ClassVar[bool] = False  # True if images are stored column by column

    image_shape: ImageShape = (1, 28, 28)
    file_prefixes = ("train", "t10k")  # prefixes of the training and test files
    torchvision_options: Mapping[str, str] = {}  # extra arguments of the torchvision class

    @dataclass
    class Config(ImageSource.Config):
        # folder of the data files; null: ./data (mnist: the files in this repository)
        root: str | None = None
        num_val: int = 5000  # validation images, taken from the official training set, >= 2
        split_seed: int = 0  # random seed of the division into train and val

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)

    @property
    def folders(self) -> list[Path]:
        """Folders to search for the files."""
        root = Path(self.config.root or str(self.DEFAULT_ROOT)).expanduser()
        return [root, root / self.TORCHVISION_CLASS / "raw"]

    def find(self, name: str) -> Path | None:
        """Return the path of a file, with or without .gz, or None if it is missing."""
        for folder in self.folders:
            for path in (folder / f"{name}.gz", folder / name):
                if path.is_file():
                    return path
        return None

    def read(self, prefix: str, kind: str) -> Tensor:
        """Read one of the four files.

        Raises:
            ValueError: The file is missing or damaged.
        """
        name = f"{prefix}-{kind}"
        path = self.find(name)
        if path is None:
            raise ValueError(
                f"dataset={self.config.name}: {name}.gz is not in {self.folders[0]}; set "
                "dataset.root to the folder that contains it"
            )
        return read_idx(path, self.SHA256.get(name))

    def prepare(self) -> Sequence[SkippedFile]:
        for prefix in self.file_prefixes:
            for kind in (IMAGES, LABELS):
                if self.find(f"{prefix}-{kind}") is None:
                    self.download(f"{prefix}-{kind}.gz")
        return []

    def download(self, missing: str) -> None:
        """Download all files.

        Raises:
            ValueError: The download failed.
        """
        import torchvision.datasets  # imported late: it takes seconds

        dataset_class = getattr(torchvision.datasets, self.TORCHVISION_CLASS)
        try:
            with download_timeout():
                dataset_class(self.folders[0], download=True, **self.torchvision_options)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"dataset={self.config.name}: {missing} is neither in {self.folders[0]} nor in "
                f"{self.folders[1]}, and the download failed ({str(error).strip()}); set "
                "dataset.root to the folder that contains it"
            ) from error

    def split(self, name: SplitName) -> Split:
        prefix = self.file_prefixes[1] if name == "test" else self.file_prefixes[0]
        images = self.read(prefix, IMAGES)
        labels = self.read(prefix, LABELS)
        if images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise ValueError(
                f"dataset={self.config.name}: {self.folders[0]} contains images of shape "
                f"{tuple(images.shape)} and {len(labels)} labels; expected shape (N, 28, 28) and N "
                "labels"
            )
        if self.IS_TRANSPOSED:
            images = images.mT.contiguous()
        official = Split(images.unsqueeze(1), labels.long())
        if name == "test":
            return official
        return train_or_val_split(official, name, self.config.num_val, self.config.split_seed)
