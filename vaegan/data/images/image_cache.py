"""Decoded images on disk: an append-only uint8 array, and an index of its rows.

A folder is decoded once. Every few seconds, the decoded pixels are flushed to disk, and then an
index that includes them replaces the old index atomically. So a killed build resumes where it
stopped, and no reader sees a partial image. Later calls decode only new files and new content; a
file that was moved or touched keeps its row. One process builds the cache while others wait for its
file lock, which is released when the process ends. Rows in use are never overwritten, so training
runs that read them are not disturbed: when rows have to move, a new array is written.

    pixels-...      rows of height x width x channels bytes
    index.json      see cache_index.py
    settings.json   source folder and decoder settings, for information
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from filelock import FileLock, Timeout

from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.cache_index import CacheIndex, CacheRecord
from vaegan.data.images.decoding import DecodedImage, ImageDecoder, silence_warnings
from vaegan.data.images.memmap import MemmapArray, MemmapImages, prefetch
from vaegan.data.images.reading import read_all, with_progress
from vaegan.data.images.scanning import ImageFile, SkippedFile
from vaegan.runtime.atomic_files import atomic_write, remove_partial, write_json

log = logging.getLogger(__name__)
COMMIT_SECONDS = 2.0  # minimum time between commits; a kill loses the work since the last one
# Maximum fraction of the build time spent on commits; large indexes are committed less often.
COMMIT_SHARE = 0.05
ROWS_PER_COPY = 512  # rows copied at a time when the array is compacted


class CachedImages(NamedTuple):
    """Images of a folder that can be decoded."""

    records: dict[str, CacheRecord]  # by path
    array: MemmapArray

    def images(self, paths: Sequence[str]) -> MemmapImages:
        """Return the images of the given files, in the given order."""
        rows = [self.records[path].row for path in paths]
        return MemmapImages(self.array, torch.tensor(rows, dtype=torch.long))


class ImageCache:
    """Cache of the decoded images of one folder, at one size.

    Args:
        folder: Folder of the cache; created if missing.
        root: Folder of the image files.
        decoder: Decodes each file.
        num_threads: Decoding threads.
    """

    def __init__(self, folder: Path, root: Path, decoder: ImageDecoder, num_threads: int) -> None:
        self.folder = folder
        self.root = root
        self.decoder = decoder
        self.num_threads = num_threads
        self.index_path = folder / "index.json"
        self.shape = (decoder.height, decoder.width, decoder.channels)
        self.row_bytes = decoder.height * decoder.width * decoder.channels

    def update(
        self, files: Sequence[ImageFile], broken_files: BrokenFileLimit, may_shrink: bool
    ) -> CachedImages:
        """Decode missing images. A complete cache is only read, and may be on read-only storage.

        Args:
            files: All image files of the folder.
            broken_files: Collects the broken files.
            may_shrink: True to allow removing the images of all other files from the cache.

        Raises:
            ValueError: Too many files are broken, or the cache cannot be written. Images
                decoded before the error are kept.
        """
        try:
            cached = self._open_complete(files, broken_files)
            if cached is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._locked():
                    cached = self._build(files, broken_files, may_shrink)
            return cached
        except (OSError, NotImplementedError) as error:  # the latter: no file locks
            raise ValueError(
                f"the image cache {self.folder} cannot be written ({error}); set dataset.cache to "
                "another folder, or to null to decode images on demand. Images decoded so far are "
                "kept"
            ) from error

    def _open_complete(
        self, files: Sequence[ImageFile], broken_files: BrokenFileLimit
    ) -> CachedImages | None:
        """Open a cache that holds every file in its current state; otherwise return None."""
        index = self._read_index()
        if index is None or find_changed(files, index):
            return None
        try:
            cached = self._open(files, index)
        except ValueError:  # the array was replaced after the index was read
            return None
        skip_known_broken(files, index, broken_files)
        return cached

    def _build(
        self, files: Sequence[ImageFile], broken_files: BrokenFileLimit, may_shrink: bool
    ) -> CachedImages:
        """Bring the cache up to date. The caller must hold the lock."""
        remove_partial(self.folder)
        index = self._read_index()
        if index is None:
            if self.index_path.exists():
                log.warning("image cache %s is damaged; decoding all images again", self.folder)
            index = CacheIndex()
        skip_known_broken(files, index, broken_files)
        changed = find_changed(files, index)
        if changed:
            self._check_disk_space(len(changed))
            self._decode(changed, index, broken_files)
        cached = self._open(files, index)
        rows = sorted({record.row for record in cached.records.values() if record.row is not None})
        if may_shrink and index.num_rows > 2 * len(rows):
            index = self._compact(files, index, rows)
            cached = self._open(files, index)
        for path in self.folder.glob("pixels-*"):
            if path.name != index.array:
                path.unlink(missing_ok=True)
        return cached

    def _read_index(self) -> CacheIndex | None:
        """Read the index; return None if the index or its array is missing or damaged."""
        try:
            index = CacheIndex.read(self.index_path)
        except (FileNotFoundError, ValueError):
            return None
        array = self.folder / index.array
        size = array.stat().st_size if array.is_file() else 0
        return index if size >= index.num_rows * self.row_bytes else None

    def _open(self, files: Sequence[ImageFile], index: CacheIndex) -> CachedImages:
        """Map the array into memory, and select the good files."""
        path = self.folder / index.array
        prefetch(path)
        good = {}
        for file in files:
            record = index.records.get(file.path)
            if record and record.row is not None:
                good[file.path] = record
        return CachedImages(good, MemmapArray(path, index.num_rows, self.shape))

    def _decode(
        self, files: Sequence[ImageFile], index: CacheIndex, broken_files: BrokenFileLimit
    ) -> None:
        """Decode files, append them to the array, and add them to the index."""
        log.info("decoding %d images in %s into the cache %s", len(files), self.root, self.folder)
        settings = {"root": str(self.root)} | dataclasses.asdict(self.decoder)
        write_json(self.folder / "settings.json", settings)
        silence_warnings()
        known = index.decoded_contents()

        def decode(digest: bytes, content: bytes) -> DecodedImage:
            if digest in known:
                return DecodedImage(None, known[digest][1])
            return self.decoder.decode(content)

        contents = read_all(self.root, files, decode, self.decoder.max_bytes, self.num_threads)
        with (
            open(self.folder / index.array, "ab") as array,
            closing(with_progress(contents, len(files))) as progress,
        ):
            array.truncate(index.num_rows * self.row_bytes)  # remove the rows of a killed build
            next_commit = time.monotonic() + COMMIT_SECONDS
            try:
                for file, digest, pixels, reason, traits in progress:
                    index.records.pop(file.path, None)
                    if pixels is not None and digest not in known:
                        array.write(pixels.tobytes())
                        known[digest] = (index.num_rows, traits)
                        index.num_rows += 1
                    if digest:
                        row = known[digest][0] if digest in known else None
                        index.add(file, digest, row, reason, traits)
                    if reason:
                        broken_files.skip(SkippedFile(file.path, reason))
                    if time.monotonic() > next_commit:
                        next_commit = self._commit(array, index)
            finally:
                self._commit(array, index)

    def _commit(self, array: BinaryIO, index: CacheIndex) -> float:
        """Write the pixels, then the index, so that each row of the index exists in the array.

        Returns:
            Time of the next commit, in seconds of `time.monotonic`.
        """
        start = time.monotonic()
        array.flush()
        os.fsync(array.fileno())
        index.write(self.index_path)
        end = time.monotonic()
        return end + max(COMMIT_SECONDS, (end - start) / COMMIT_SHARE)

    def _compact(
        self, files: Sequence[ImageFile], index: CacheIndex, rows: list[int]
    ) -> CacheIndex:
        """Copy the rows in use to a new array. If the disk is full, keep the old array."""
        new_rows = {row: i for i, row in enumerate(rows)}
        smaller = CacheIndex(num_rows=len(rows))
        for file in files:
            record = index.records.get(file.path)
            if record:
                row = None if record.row is None else new_rows[record.row]
                smaller.records[file.path] = record._replace(row=row)
        pixels = MemmapArray(self.folder / index.array, index.num_rows, self.shape).pixels
        try:
            with atomic_write(self.folder / smaller.array) as array:
                for start in range(0, len(rows), ROWS_PER_COPY):
                    array.write(pixels[rows[start : start + ROWS_PER_COPY]].numpy().tobytes())
            smaller.write(self.index_path)
        except OSError as error:
            log.info("image cache %s stays larger than necessary (%s)", self.folder, error)
            return index
        return smaller

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file lock of the cache."""
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is decoding the images in %s; waiting for it", self.root)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _check_disk_space(self, num_files: int) -> None:
        """Raise a ValueError if the disk has no space for `num_files` more images."""
        needed = num_files * self.row_bytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"{num_files} images of {self.row_bytes} bytes need {needed / 1e6:,.1f} MB in "
                f"{self.folder}, but only {free / 1e6:,.1f} MB are free; set dataset.cache to a "
                "folder on another disk, or to null to decode images on demand, or choose a "
                "smaller dataset.image_size"
            )


def find_changed(files: Sequence[ImageFile], index: CacheIndex) -> list[ImageFile]:
    """Return the new and changed files."""
    records = index.records
    return [
        file for file in files if file.path not in records or not records[file.path].matches(file)
    ]


def skip_known_broken(
    files: Sequence[ImageFile], index: CacheIndex, broken_files: BrokenFileLimit
) -> None:
    """Record unchanged files that are known to be broken as skipped."""
    for file in files:
        record = index.records.get(file.path)
        if record is not None and record.matches(file) and record.row is None:
            broken_files.skip(SkippedFile(file.path, record.reason))
