"""Images decoded on demand, for data sets that are too large for a cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.decoding import (
    BrokenImage,
    DecodedImage,
    ImageDecoder,
    Pixels,
    silence_warnings,
)
from vaegan.data.images.reading import Content, read_all, read_bounded, with_progress
from vaegan.data.images.scanning import ImageFile, SkippedFile

log = logging.getLogger(__name__)
T = TypeVar("T")


def check_files(
    root: Path,
    files: Sequence[ImageFile],
    decoder: ImageDecoder,
    broken_files: BrokenFileLimit,
    num_threads: int,
) -> dict[str, Content]:
    """Read every file once. Return hash and traits of files with a valid image header, by path.

    Raises:
        ValueError: Too many files are broken.
    """

    def check(digest: bytes, content: bytes) -> DecodedImage:
        return DecodedImage(None, decoder.check(content))

    silence_warnings()
    good = {}
    contents = read_all(root, files, check, decoder.max_bytes, num_threads)
    for content in with_progress(contents, len(files), "checking images"):
        if content.reason:
            broken_files.skip(SkippedFile(content.file.path, content.reason))
        else:
            good[content.file.path] = content
    return good


class ImagesOnDemand:
    """Images decoded at each access: `images[index]` is uint8, (n, C, H, W).

    The memory format is channels-last, as in `MemmapImages`: results do not depend on the cache.
    A missing or broken file is replaced by the next good file of its class.

    Args:
        root: Folder of the image files.
        paths: Paths of the files, relative to `root`.
        labels: Class of each file, (N,).
        decoder: Decodes each file.
        broken_files: Collects the broken files.
        num_threads: Decoding threads; a data loader process always uses one.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Tensor,
        decoder: ImageDecoder,
        broken_files: BrokenFileLimit,
        num_threads: int,
    ) -> None:
        self.root = root
        self.paths = paths
        self.labels = labels.tolist()
        self.decoder = decoder
        self.broken_files = broken_files
        self.num_threads = num_threads

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        indices = torch.arange(len(self))[index].tolist()
        return self._stack(self._map(self._read, indices))

    def sample(self, num_images: int) -> Tensor:
        """Return about `num_images` evenly spaced images, without broken ones."""
        step = max(1, len(self) // num_images)
        decoded = self._map(self._try_to_read, range(0, len(self), step))
        return self._stack([pixels for pixels in decoded if pixels is not None])

    def _map(self, read: Callable[[int], T], indices: Iterable[int]) -> list[T]:
        """Read images in parallel."""
        with ThreadPoolExecutor(1 if get_worker_info() else self.num_threads) as executor:
            return list(executor.map(read, indices))

    def _stack(self, arrays: Sequence[Pixels]) -> Tensor:
        """Return arrays as a tensor (n, C, H, W) in channels-last memory format."""
        decoder = self.decoder
        pixels = np.empty((len(arrays), decoder.height, decoder.width, decoder.channels), np.uint8)
        for i, array in enumerate(arrays):
            pixels[i] = array
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _try_to_read(self, index: int) -> Pixels | None:
        """Decode a file; return None if it is broken."""
        try:
            return self.decoder(read_bounded(self.root / self.paths[index], self.decoder.max_bytes))
        except (OSError, BrokenImage):
            return None

    def _read(self, index: int) -> Pixels:
        """Decode a file, or the next good file of its class."""
        known_broken = self.broken_files.skipped_by_path
        for step in range(len(self.paths)):
            candidate = (index + step) % len(self.paths)
            path = self.paths[candidate]
            if path in known_broken or self.labels[candidate] != self.labels[index]:
                continue
            try:
                return self.decoder(read_bounded(self.root / path, self.decoder.max_bytes))
            except (OSError, BrokenImage) as error:
                log.warning(
                    "%r cannot be used (%s); using the next image of its class instead",
                    path,
                    error,
                )
                self.broken_files.skip(SkippedFile(path, str(error)))
        raise ValueError(
            f"no image of the class of {self.paths[index]!r} in {self.root} can be read; "
            "restore the files"
        )
