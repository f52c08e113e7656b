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
    """A file mapped into memory as uint8 (num_rows, H, W, C), `pixels`. Nothing is read before it
    is used.

    Args:
        path: The file, which may be longer.
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
            raise ValueError(f"the image cache {path} was rebuilt in the meantime; start again")
        self.pixels = flat.view(num_rows, *shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a path: loader processes map the file again."""
        return MemmapArray, (self.path, self.num_rows, self.shape)


class MemmapImages:
    """Some rows of an array: `images[index]` is uint8 (n, C, H, W), in channels-last memory format.

    Memory grows with the number of selected images.
    """

    def __init__(self, array: MemmapArray, rows: Tensor) -> None:
        self.array = array
        self.rows = rows

    @property
    def nbytes(self) -> int:
        """Size of all images."""
        return len(self.rows) * math.prod(self.array.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.array.pixels.index_select(0, self.rows[index]).permute(0, 3, 1, 2)


def prefetch(path: Path) -> None:
    """Start reading a file into memory in the background, if it fits into half of what is free."""
    if sys.platform != "linux":
        return
    with suppress(OSError), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size < free // 2:
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)
