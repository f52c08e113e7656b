"""Decoded pictures on disk: an array of uint8 that grows at its end, and a table that says which row is whose.

A folder is decoded once. What is decoded is written down every few seconds: first the pixels, then, in one
transaction, the rows of the table. So a build that was killed goes on where it was, and nobody sees half a picture.
Later calls decode what is new or has another content; a picture that was only moved or touched keeps its row. One
process builds, the others wait for it: a file lock, which ends with the process that holds it. A row that was given
away is never written again, so that a running training is not disturbed: where rows have to move, a new file is begun.

    pixels-...      rows of height x width x channels bytes
    table.sqlite    see cache_table.py
    settings.json   what it was made from, for people to read
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from vaegan.data.images.cache_table import CacheTable, Contents, Record, new_array
from vaegan.data.images.decoding import Decoder, Pixels, quiet
from vaegan.data.images.memmap import MappedArray, MappedImages, read_ahead
from vaegan.data.images.reading import BrokenFileLimit, read_all, with_progress
from vaegan.data.images.scanning import ImageFile, SkippedFile

log = logging.getLogger(__name__)
COMMIT_FILES, COMMIT_SECONDS = 512, 2.0  # the work that a kill may cost


class CachedImages(NamedTuple):
    """What a cache holds of a folder."""

    records: dict[str, Record]  # by path, of each file that can be used
    array: MappedArray

    def images(self, paths: Sequence[str]) -> MappedImages:
        """The pictures of these files, in their order."""
        rows = [self.records[path].row or 0 for path in paths]
        return MappedImages(self.array, torch.tensor(rows, dtype=torch.long))


class ImageCache:
    """The decoded pictures of one folder, in one shape.

    Args:
        folder: Where they are kept; made if it is not there.
        root: Folder of the pictures.
        decoder: What becomes of each.
        num_threads: That decode at once.
    """

    def __init__(self, folder: Path, root: Path, decoder: Decoder, num_threads: int) -> None:
        self.folder, self.root, self.decoder, self.num_threads = folder, root, decoder, num_threads
        self.shape = (decoder.height, decoder.width, decoder.channels)
        self.row_bytes = decoder.channels * decoder.height * decoder.width

    def update(
        self, files: Sequence[ImageFile], broken_files: BrokenFileLimit, may_shrink: bool
    ) -> CachedImages:
        """Decode what is not there yet. A cache that has all is only read, and may lie on read-only storage.

        Args:
            files: Of the folder.
            tally: Counts those that are broken.
            may_shrink: Whether what is in the cache of other files may be thrown away.

        Raises:
            ValueError: Too many files are broken, or the cache cannot be written: with what to do. What is decoded by
                then is kept.
        """
        try:
            if whole := self._complete(files):
                contents, array = whole
                skip_broken(files, contents, broken_files)
            else:
                self.folder.mkdir(parents=True, exist_ok=True)
                with self._locked(), closing(self._open_table()) as table:
                    contents = self._build(table, files, broken_files, may_shrink)
                    array = self._map(contents)
        except (OSError, sqlite3.DatabaseError, NotImplementedError) as error:
            raise ValueError(
                f"the cache of decoded pictures in {self.folder} cannot be written ({error}); set dataset.cache to "
                "another folder, or to null, which decodes at every use. What is decoded by now is kept"
            ) from error
        found = {
            file.path: contents.records[file.path]
            for file in files
            if file.path in contents.records
        }
        return CachedImages(
            {path: record for path, record in found.items() if record.row is not None}, array
        )

    def _complete(self, files: Sequence[ImageFile]) -> tuple[Contents, MappedArray] | None:
        """The cache, if it knows all files as they are; None if not, and where it cannot be read."""
        path = self.folder / "table.sqlite"
        if not path.is_file():
            return None
        try:
            with closing(CacheTable(path, is_read_only=True)) as table:
                contents = table.read()
            if contents is None or not self._is_whole(contents) or missing(files, contents):
                return None
            return contents, self._map(contents)
        except (sqlite3.DatabaseError, ValueError):  # or it was made anew between these two lines
            return None

    def _build(
        self,
        table: CacheTable,
        files: Sequence[ImageFile],
        broken_files: BrokenFileLimit,
        may_shrink: bool,
    ) -> Contents:
        """Bring the cache up to date; nobody else does so meanwhile."""
        contents = self._load(table)
        skip_broken(files, contents, broken_files)
        if todo := missing(files, contents):
            self._check_space(len(todo))
            self._decode(table, todo, contents, broken_files)
        if may_shrink:
            used = {
                file.path: contents.records[file.path]
                for file in files
                if file.path in contents.records
            }
            if contents.num_rows > 2 * len(
                {record.row for record in used.values() if record.row is not None}
            ):
                contents = self._compact(table, contents, used)
        for path in self.folder.glob("pixels-*"):
            if path.name != contents.array:
                path.unlink(missing_ok=True)
        return contents

    def _decode(
        self,
        table: CacheTable,
        files: Sequence[ImageFile],
        contents: Contents,
        broken_files: BrokenFileLimit,
    ) -> None:
        """Decode files into the array, and put them into the table and into `contents`."""
        rows = {
            record.digest: record.row
            for record in contents.records.values()
            if record.row is not None
        }
        log.info("decoding %d pictures of %s, once, into %s", len(files), self.root, self.folder)

        def decode(digest: bytes, content: bytes) -> Pixels | None:
            return None if digest in rows else self.decoder(content)

        settings = {"root": str(self.root)} | dataclasses.asdict(self.decoder)
        (self.folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        quiet()
        read = read_all(self.root, files, decode, self.decoder.max_bytes, self.num_threads)
        new: dict[str, Record] = {}
        last = time.monotonic()
        with (
            open(self.folder / contents.array, "ab") as array,
            closing(with_progress(read, len(files))) as progress,
        ):
            array.truncate(
                contents.num_rows * self.row_bytes
            )  # what a killed build had not put into the table

            def commit() -> None:
                """Pixels first: what is in the table is also in the array, even after a loss of power."""
                array.flush()
                os.fsync(array.fileno())
                table.add(contents, new)
                contents.records |= new
                new.clear()

            try:
                for file, digest, pixels, reason in progress:
                    contents.records.pop(file.path, None)
                    if digest not in rows and pixels is not None:
                        array.write(pixels.tobytes())
                        rows[digest], contents.num_rows = contents.num_rows, contents.num_rows + 1
                    if digest:
                        new[file.path] = Record(
                            file.num_bytes, file.mtime_ns, digest, rows.get(digest), reason
                        )
                    if reason:
                        broken_files.skip(SkippedFile(file.path, reason))
                    if len(new) >= COMMIT_FILES or time.monotonic() - last > COMMIT_SECONDS:
                        commit()
                        last = time.monotonic()
            finally:
                commit()

    def _compact(self, table: CacheTable, contents: Contents, used: dict[str, Record]) -> Contents:
        """Leave out the rows of files that are gone, in a new array; where it has no place, leave all as it is."""
        rows = sorted({record.row for record in used.values() if record.row is not None})
        place = {row: i for i, row in enumerate(rows)}
        moved = {
            path: record if record.row is None else record._replace(row=place[record.row])
            for path, record in used.items()
        }
        smaller = Contents(new_array(), len(rows), moved)
        old = MappedImages(self._map(contents), torch.tensor(rows, dtype=torch.long))
        try:
            with open(self.folder / smaller.array, "xb") as array:
                for start in range(0, len(rows), COMMIT_FILES):
                    array.write(
                        old.array.pixels[old.rows[start : start + COMMIT_FILES]].numpy().tobytes()
                    )
                array.flush()
                os.fsync(array.fileno())
            table.replace(smaller)
        except (OSError, sqlite3.OperationalError) as error:
            log.info("the cache in %s stays larger than it need be (%s)", self.folder, error)
            return contents
        return smaller

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("another process decodes the pictures in %s; waiting for it", self.root)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _open_table(self) -> CacheTable:
        """The table, made if it is not there, or damaged."""
        path = self.folder / "table.sqlite"
        table = CacheTable(path)
        try:
            table.create()
            table.read()
            return table
        except sqlite3.OperationalError:
            table.close()
            raise
        except sqlite3.DatabaseError:
            table.close()
            log.warning(
                "the cache of decoded pictures in %s is damaged: all are decoded anew", self.folder
            )
            path.unlink()
            return self._open_table()

    def _load(self, table: CacheTable) -> Contents:
        """What the table says; nothing, with a new array, if the one that it speaks of is not there or cut short."""
        contents = table.read()
        if contents and self._is_whole(contents):
            return contents
        if contents:
            log.warning(
                "the cache of decoded pictures in %s is damaged: all are decoded anew", self.folder
            )
        contents = Contents(new_array(), 0, {})
        table.replace(contents)
        return contents

    def _is_whole(self, contents: Contents) -> bool:
        """Whether the array has all rows."""
        path = self.folder / contents.array
        return contents.num_rows == 0 or (
            path.is_file() and path.stat().st_size >= contents.num_rows * self.row_bytes
        )

    def _map(self, contents: Contents) -> MappedArray:
        path = self.folder / contents.array
        read_ahead(path)
        return MappedArray(path, contents.num_rows, self.shape)

    def _check_space(self, num_files: int) -> None:
        """Raise a ValueError where the disk has no place for so many more pictures."""
        need, free = num_files * self.row_bytes, shutil.disk_usage(self.folder).free
        if need > free:
            raise ValueError(
                f"{num_files} pictures of {self.row_bytes} bytes need {need / 1e6:,.1f} MB in {self.folder}, where "
                f"{free / 1e6:,.1f} MB are free; set dataset.cache to a folder on another disk, or to null, which "
                "decodes at every use, or choose a smaller dataset.image_size"
            )


def missing(files: Sequence[ImageFile], contents: Contents) -> list[ImageFile]:
    """The files that the table does not know as they are."""
    records = contents.records
    return [
        file for file in files if file.path not in records or not records[file.path].is_of(file)
    ]


def skip_broken(
    files: Sequence[ImageFile], contents: Contents, broken_files: BrokenFileLimit
) -> None:
    """Count those of which it is known that they are broken."""
    for file in files:
        record = contents.records.get(file.path)
        if record and record.row is None and record.is_of(file):
            broken_files.skip(SkippedFile(file.path, record.reason))
