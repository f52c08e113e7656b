"""Pictures that are decoded whenever they are asked for: for sets that no disk can hold once more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vaegan.data.images.decoding import BrokenImage, Decoder, Pixels, quiet
from vaegan.data.images.reading import BrokenFileLimit, read_all, read_bounded, with_progress
from vaegan.data.images.scanning import ImageFile, SkippedFile

log = logging.getLogger(__name__)


def digests(
    root: Path,
    files: Sequence[ImageFile],
    decoder: Decoder,
    broken_files: BrokenFileLimit,
    num_threads: int,
) -> dict[str, bytes]:
    """Read every file once: by path, the hash of each that begins as a picture does.

    Raises:
        ValueError: Too many do not.
    """

    def check(digest: bytes, content: bytes) -> Pixels | None:
        decoder.check(content)
        return None

    quiet()
    found = {}
    contents = read_all(root, files, check, decoder.max_bytes, num_threads)
    for content in with_progress(contents, len(files), "looking through the pictures"):
        if content.reason:
            broken_files.skip(SkippedFile(content.file.path, content.reason))
        else:
            found[content.file.path] = content.digest
    return found


class ImagesOnDemand:
    """Files as images: `images[which]` is uint8 (n, C, H, W).

    In the place of a file that turns out to be broken, or has gone, stands the next good one of its class.

    Args:
        root: Folder of the pictures.
        paths: Of the files, from there on.
        labels: Of each; another picture of the same class takes the place of one that is broken.
        decoder: What becomes of each.
        tally: Counts the broken ones, and stops where there are too many.
        num_threads: That decode at once; in a loader's process one.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        labels: Tensor,
        decoder: Decoder,
        broken_files: BrokenFileLimit,
        num_threads: int,
    ) -> None:
        self.root, self.paths, self.labels, self.decoder = root, paths, labels.tolist(), decoder
        self.broken_files, self.num_threads = broken_files, num_threads

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        indices = torch.arange(len(self))[which].tolist()
        with ThreadPoolExecutor(1 if get_worker_info() else self.num_threads) as executor:
            pixels = [
                torch.from_numpy(found).permute(2, 0, 1)
                for found in executor.map(self._read, indices)
            ]
        shape = (self.decoder.channels, self.decoder.height, self.decoder.width)
        return torch.stack(pixels) if pixels else torch.empty(0, *shape, dtype=torch.uint8)

    def _read(self, index: int) -> Pixels:
        bad = {skipped.path for skipped in self.broken_files.skipped}
        for step in range(len(self.paths)):
            place = (index + step) % len(self.paths)
            path = self.paths[place]
            if path in bad or self.labels[place] != self.labels[index]:
                continue
            try:
                return self.decoder(read_bounded(self.root / path, self.decoder.max_bytes))
            except (OSError, BrokenImage) as error:
                log.warning(
                    "%r cannot be used (%s): the next picture of its class takes its place",
                    path,
                    error,
                )
                self.broken_files.skip(SkippedFile(path, str(error)))
        raise ValueError(
            f"no picture of the class of {self.paths[index]!r} in {self.root} can be read any more"
        )
