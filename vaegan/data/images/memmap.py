"""Arrays on disk that take the place of tensors in memory."""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class MappedArray:
    """An array on disk, mapped into memory: uint8 (num_rows, H, W, C) in `pixels`; nothing is read before it is used.

    Args:
        shape: H, W, C.

    Raises:
        ValueError: The file is not there any more.
    """

    def __init__(self, path: Path, num_rows: int, shape: tuple[int, int, int]) -> None:
        self.path, self.num_rows, self.shape = path, num_rows, shape
        size = num_rows * math.prod(shape)
        if num_rows and (not path.is_file() or path.stat().st_size < size):
            raise ValueError(
                f"the cache of decoded pictures {path} was made anew meanwhile; start again"
            )
        mapped = (
            torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
            if size
            else torch.empty(0)
        )
        self.pixels = mapped.byte().view(num_rows, *shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Loader processes map the file for themselves."""
        return MappedArray, (self.path, self.num_rows, self.shape)


class MappedImages:
    """Some rows of an array: `images[which]` is uint8 (n, C, H, W), channels last in memory, as networks like it.

    Memory grows with what is asked for.
    """

    def __init__(self, array: MappedArray, rows: Tensor) -> None:
        self.array, self.rows = array, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.array.pixels.index_select(0, self.rows[which]).permute(0, 3, 1, 2)


def read_ahead(path: Path) -> None:
    """Ask the system to read a file into memory, in the background, if it takes less than half of what is free."""
    if sys.platform == "linux":
        with suppress(OSError), open(path, "rb") as file:
            size, free = (
                os.fstat(file.fileno()).st_size,
                os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            )
            if size < free // 2:
                os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)
