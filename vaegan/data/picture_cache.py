"""Decoded pictures on disk: one array of uint8 that grows at its end, and a table that says which row is whose.

A folder is decoded once. What is decoded is written down every few seconds: first the pixels, then, in one
transaction, the rows of the table. So a build that was killed goes on where it was, and nobody sees half a picture.
Later calls decode what is new or has another content; a picture that was only moved or touched keeps its row. One
process builds, the others wait for it: a file lock, which ends with the process that holds it.

    pixels          rows of channels x height x width bytes
    table.sqlite    path, size, time of modification and hash of every file, and its row or why it has none
    settings.json   what it was made from, for people to read
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from vaegan.data.decoding import Decoder, Pixels, quiet
from vaegan.data.reading import Tally, read_all, with_progress
from vaegan.data.scanning import PictureFile, Skipped

log = logging.getLogger(__name__)
COMMIT_FILES, COMMIT_SECONDS = 512, 2.0  # the work that a kill may cost
SCHEMA = """CREATE TABLE IF NOT EXISTS files
    (path BLOB PRIMARY KEY, num_bytes INTEGER, mtime_ns INTEGER, digest BLOB, row INTEGER, reason TEXT)"""


class Record(NamedTuple):
    """What is known of a file."""

    num_bytes: int
    mtime_ns: int
    digest: bytes  # hash of the content
    row: int | None  # of the array; None for a broken picture
    reason: str  # why it is broken


class MappedImages:
    """Rows of an array on disk, as images: `images[which]` is uint8 (n, C, H, W). Memory grows with what is asked for.

    Args:
        path: The array's file.
        rows: Of the images, int64 (N,).
        shape: Of each.
    """

    def __init__(self, path: Path, rows: Tensor, shape: tuple[int, int, int]) -> None:
        self.path, self.rows, self.shape = path, rows, shape
        num_rows = int(rows.max()) + 1 if len(rows) else 0
        size = num_rows * math.prod(shape)
        self.pixels = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).view(num_rows, *shape)

    def __reduce__(self) -> tuple[Any, ...]:
        """Loader processes map the file for themselves."""
        return MappedImages, (self.path, self.rows, self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, which: Tensor | slice) -> Tensor:
        return self.pixels[self.rows[which]]


class PictureCache:
    """The decoded pictures of one folder, in one shape.

    Args:
        folder: Where they are kept; made if it is not there.
        root: Folder of the pictures.
        decoder: What becomes of each.
    """

    def __init__(self, folder: Path, root: Path, decoder: Decoder) -> None:
        self.folder, self.root, self.decoder = folder, root, decoder
        self.shape = (decoder.channels, decoder.height, decoder.width)
        self.row_bytes = decoder.channels * decoder.height * decoder.width

    @property
    def pixels(self) -> Path:
        """File of the array."""
        return self.folder / "pixels"

    def update(self, files: Sequence[PictureFile], tally: Tally, num_threads: int) -> dict[str, Record]:
        """Decode what is not there yet.

        Returns:
            By path, the record of each file that has a row.

        Raises:
            ValueError: Too many files are broken, or the cache cannot be written: with what to do. What is decoded by
                then is kept.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                table, records = self._load()
                with closing(table):
                    return self._update(table, records, files, tally, num_threads)
        except (OSError, sqlite3.OperationalError) as error:
            raise ValueError(
                f"the cache of decoded pictures in {self.folder} cannot be written ({error}); set dataset.cache to "
                "another folder, or to null, which decodes at every use. What is decoded by now is kept"
            ) from error

    def images(self, records: Sequence[Record]) -> MappedImages:
        """The pictures of these records, in their order."""
        rows = [record.row for record in records if record.row is not None]
        read_ahead(self.pixels)
        return MappedImages(self.pixels, torch.tensor(rows, dtype=torch.long), self.shape)

    def _update(
        self,
        table: sqlite3.Connection,
        records: dict[str, Record],
        files: Sequence[PictureFile],
        tally: Tally,
        num_threads: int,
    ) -> dict[str, Record]:
        missing = [file for file in files if not is_current(records.get(file.path), file)]
        for file in files:
            record = records.get(file.path)
            if record and record.row is None and is_current(record, file):
                tally.skip(Skipped(file.path, record.reason))
        if missing:
            self._check_space(len(missing))
            self._build(table, missing, records, tally, num_threads)
        found = {file.path: records[file.path] for file in files if file.path in records}
        used = {path: record for path, record in found.items() if record.row is not None}
        if self.pixels.exists() and self._num_rows() > 2 * len({record.row for record in used.values()}):
            found = self._compact(table, found)
            used = {path: record for path, record in found.items() if record.row is not None}
        return used

    def _build(
        self,
        table: sqlite3.Connection,
        files: Sequence[PictureFile],
        records: dict[str, Record],
        tally: Tally,
        num_threads: int,
    ) -> None:
        """Decode files into the array, and put them into the table and into `records`."""
        rows = {record.digest: record.row for record in records.values() if record.row is not None}
        num_rows = max(rows.values(), default=-1) + 1
        log.info("decoding %d pictures of %s, once, into %s", len(files), self.root, self.folder)

        def decode(digest: bytes, content: bytes) -> Pixels | None:
            return None if digest in rows else self.decoder(content)

        settings = {"root": str(self.root)} | dataclasses.asdict(self.decoder)
        (self.folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
        quiet()
        contents = read_all(self.root, files, decode, self.decoder.max_bytes, num_threads)
        new: dict[str, Record] = {}
        last = time.monotonic()
        with open(self.pixels, "ab") as array, closing(with_progress(contents, len(files), "decoding")) as progress:
            array.truncate(num_rows * self.row_bytes)  # what a killed build had not put into the table
            try:
                for file, digest, pixels, reason in progress:
                    records.pop(file.path, None)
                    if digest not in rows and pixels is not None:
                        array.write(pixels.tobytes())
                        rows[digest], num_rows = num_rows, num_rows + 1
                    if digest:
                        new[file.path] = Record(file.num_bytes, file.mtime_ns, digest, rows.get(digest), reason)
                    if reason:
                        tally.skip(Skipped(file.path, reason))
                    if len(new) >= COMMIT_FILES or time.monotonic() - last > COMMIT_SECONDS:
                        commit(array, table, new)
                        records |= new
                        new, last = {}, time.monotonic()
            finally:
                commit(array, table, new)
                records |= new

    def _compact(self, table: sqlite3.Connection, records: dict[str, Record]) -> dict[str, Record]:
        """Leave out the rows of files that are gone. Runs that still use the old array keep it until they end."""
        rows = sorted({record.row for record in records.values() if record.row is not None})
        place = {row: i for i, row in enumerate(rows)}
        old, part = MappedImages(self.pixels, torch.tensor(rows, dtype=torch.long), self.shape), self.folder / "part"
        with open(part, "wb") as array:
            for start in range(0, len(rows), COMMIT_FILES):
                array.write(old[start : start + COMMIT_FILES].numpy().tobytes())
            array.flush()
            os.fsync(array.fileno())
        with table:
            table.execute("DELETE FROM files")  # killed from here on, the next build starts from nothing
        os.replace(part, self.pixels)
        moved = {
            path: record if record.row is None else record._replace(row=place[record.row])
            for path, record in records.items()
        }
        write(table, moved)
        return moved

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

    def _load(self) -> tuple[sqlite3.Connection, dict[str, Record]]:
        """The table and all its records; empty where it, or the array that it speaks of, is damaged."""
        table = sqlite3.connect(self.folder / "table.sqlite")
        try:
            table.execute(SCHEMA)
            found = {os.fsdecode(path): Record(*rest) for path, *rest in table.execute("SELECT * FROM files")}
            needed = max((record.row for record in found.values() if record.row is not None), default=-1) + 1
            if self._num_rows() >= needed:
                return table, found
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            pass  # as below
        table.close()
        log.warning("the cache of decoded pictures in %s is damaged: all are decoded anew", self.folder)
        (self.folder / "table.sqlite").unlink()
        return self._load()

    def _num_rows(self) -> int:
        return self.pixels.stat().st_size // self.row_bytes if self.pixels.exists() else 0

    def _check_space(self, num_files: int) -> None:
        """Raise a ValueError where the disk has no place for so many more pictures."""
        need, free = num_files * self.row_bytes, shutil.disk_usage(self.folder).free
        if need > free:
            raise ValueError(
                f"{num_files} pictures of shape {self.shape} need {need / 1e9:.2f} GB in {self.folder}, where "
                f"{free / 1e9:.2f} GB are free; set dataset.cache to a folder on another disk, or to null, which "
                "decodes at every use, or choose a smaller dataset.image_size"
            )


def read_ahead(path: Path) -> None:
    """Ask the system to read a file into memory, in the background, if it takes less than half of what is free."""
    if hasattr(os, "posix_fadvise"):
        size, free = path.stat().st_size, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size < free // 2:
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)


def is_current(record: Record | None, file: PictureFile) -> bool:
    """Whether a file is still what the record says."""
    return record is not None and (record.num_bytes, record.mtime_ns) == (file.num_bytes, file.mtime_ns)


def commit(array: BinaryIO, table: sqlite3.Connection, records: dict[str, Record]) -> None:
    """Pixels first: what is in the table is also in the array, even after a loss of power."""
    array.flush()
    os.fsync(array.fileno())
    write(table, records)


def write(table: sqlite3.Connection, records: dict[str, Record]) -> None:
    """Put records into the table, all or none of them."""
    with table:
        rows = [(os.fsencode(path), *record) for path, record in records.items()]
        table.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
