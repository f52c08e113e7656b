"""Memory-mapped arrays of images."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class MemmapArray:
    """Memory-mapped uint8 array `pixels`, (num_rows, H, W, C). Pixels are read when they are used.

    Args:
        path: Path of the file, which may contain more rows.
        num_rows: Number of images.
        shape: H, W, C.

    Raises:
        ValueError: The file is missing or too short.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, int, int]) -> None:
        self.path = path
        self.num_rows = num_rows
        self.shape = shape
        size = num_rows * math.prod(shape)
        if num_rows == 0:
            flat = torch.empty(0, dtype=torch.uint8)
        elif path.is_file() and path.stat().st_size >= size:
            flat = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
        else:
            raise ValueError(f"image cache {path} was rebuilt by another process; restart the run")
        self.pixels = flat.view(num_rows, *shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the path: data loader processes map the file again."""
        return MemmapArray, (self.path, self.num_rows, self.shape)


class MemmapImages:
    """Selected rows of a memory-mapped array.

    `images[index]` is uint8, (n, C, H, W), in channels-last memory format. Only the images at
    `index` are copied.
    """

    def __init__(self, array: MemmapArray, rows: Tensor) -> None:
        self.array = array
        self.rows = rows

    @property
    def nbytes(self) -> int:
        """Size of all images in bytes."""
        return len(self.rows) * math.prod(self.array.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.array.pixels.index_select(0, self.rows[index]).permute(0, 3, 1, 2)

    def sample(self, num_images: int) -> Tensor:
        """Return about `num_images` evenly spaced images."""
        return self[torch.arange(0, len(self), max(1, len(self) // num_images))]


def prefetch(path: Path) -> None:
    """Start reading a file in the background, if it fits into half of the free memory."""
    if sys.platform != "linux":
        return
    with suppress(OSError), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size < free // 2:
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)
