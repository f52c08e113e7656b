"""The table of a cache of decoded pictures: which row of which array is whose. SQLite: all of a change, or nothing."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vaegan.data.images.decoding import PILLOW_VERSION
from vaegan.data.images.scanning import ImageFile

WAIT_TO_READ, WAIT_TO_WRITE = 5.0, 600.0  # seconds, for others that read or write
SCHEMA = """
CREATE TABLE IF NOT EXISTS files
    (path BLOB PRIMARY KEY, num_bytes INTEGER, mtime_ns INTEGER, digest BLOB, row INTEGER, reason TEXT);
CREATE TABLE IF NOT EXISTS state (array TEXT, num_rows INTEGER, pillow TEXT);
"""


class Record(NamedTuple):
    """What is known of a file."""

    num_bytes: int
    mtime_ns: int
    digest: bytes  # hash of the content
    row: int | None  # of the array; None for a broken picture
    reason: str  # why it is broken

    def is_possible(self, num_rows: int) -> bool:
        """Whether an array of so many rows may have it."""
        has_row = self.row is None or 0 <= self.row < num_rows
        return has_row and isinstance(self.digest, bytes) and self.reason.isprintable()

    def is_of(self, file: ImageFile) -> bool:
        """Whether the file is still what it was."""
        return (self.num_bytes, self.mtime_ns) == (file.num_bytes, file.mtime_ns)


@dataclass
class Contents:
    """All that the table says."""

    array: str  # name of the array's file: another one each time that rows change their place
    num_rows: int  # that were ever given away; later ones may be overwritten
    records: dict[str, Record]  # by path


def new_array() -> str:
    """A name that no array has had."""
    return f"pixels-{secrets.token_hex(4)}"


class CacheTable:
    """A connection to the table.

    Args:
        path: Its file.
        is_read_only: The file must be there then, and nothing is written, not even a lock.
    """

    def __init__(self, path: Path, is_read_only: bool = False) -> None:
        uri = path.resolve().as_uri() + ("?mode=ro" if is_read_only else "")
        self.connection = sqlite3.connect(
            uri, timeout=WAIT_TO_READ if is_read_only else WAIT_TO_WRITE, uri=True
        )

    def close(self) -> None:
        """Give the file free."""
        self.connection.close()

    def read(self) -> Contents | None:
        """All that is there, of one moment; None where nothing is.

        What another version of Pillow could not decode is left out.

        Raises:
            sqlite3.DatabaseError: The file is damaged, or (OperationalError) cannot be read now.
        """
        with self.connection:
            self.connection.execute("BEGIN")
            state = self.connection.execute("SELECT array, num_rows, pillow FROM state").fetchone()
            if state is None:
                return None
            array, num_rows, version = state
            rows = self.connection.execute(
                "SELECT path, num_bytes, mtime_ns, digest, row, reason FROM files"
            )
            try:
                records = {os.fsdecode(path): Record(*rest) for path, *rest in rows}
                is_ours = re.fullmatch(r"pixels-[0-9a-f]+", array) and num_rows >= 0
                is_ours = is_ours and all(
                    record.is_possible(num_rows) for record in records.values()
                )
            except TypeError:
                is_ours = False
            if not is_ours:
                raise sqlite3.DatabaseError("the table names another file, or rows that cannot be")
        if version != PILLOW_VERSION:
            records = {path: record for path, record in records.items() if record.row is not None}
        return Contents(array, num_rows, records)

    def create(self) -> None:
        """Make the table if it is not there."""
        self.connection.executescript(SCHEMA)

    def add(self, contents: Contents, records: Mapping[str, Record]) -> None:
        """Put in new records, and how far the array reaches now."""
        with self.connection:
            self._write(contents, records)

    def replace(self, contents: Contents) -> None:
        """Forget all else."""
        with self.connection:
            self.connection.execute("DELETE FROM files")
            self._write(contents, contents.records)

    def _write(self, contents: Contents, records: Mapping[str, Record]) -> None:
        rows = [(os.fsencode(path), *record) for path, record in records.items()]
        self.connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.connection.execute("DELETE FROM state")
        self.connection.execute(
            "INSERT INTO state VALUES (?, ?, ?)",
            (contents.array, contents.num_rows, PILLOW_VERSION),
        )
