"""Index of an image cache: a JSON file that gives the row of each image file."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vaegan.data.images.decoding import PILLOW_VERSION
from vaegan.data.images.scanning import ImageFile
from vaegan.runtime.atomic_files import atomic_write


class CacheRecord(NamedTuple):
    """Size, time, hash and row of a file, or why it is broken."""

    num_bytes: int
    mtime_ns: int
    digest: bytes  # hash of the content
    row: int | None  # in the array; None for a broken image
    reason: str  # why it is broken

    def matches(self, file: ImageFile) -> bool:
        """True if the file has not changed."""
        return self.num_bytes == file.num_bytes and self.mtime_ns == file.mtime_ns


def new_array_name() -> str:
    """Return a name that no array has had."""
    return f"pixels-{secrets.token_hex(4)}"


@dataclass
class CacheIndex:
    """Names the array of pixels, and the row of each file in it."""

    array: str = field(default_factory=new_array_name)  # another one whenever rows move
    num_rows: int = 0  # ever used; none of them is written again
    records: dict[str, CacheRecord] = field(default_factory=dict)  # by path

    @classmethod
    def read(cls, path: Path) -> CacheIndex:
        """Read and validate an index. What another version of Pillow could not decode is left out.

        Raises:
            OSError: It cannot be read.
            ValueError: It is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
            version = content["pillow"]
            records = dict(map(parse_record, content["records"]))
            index = cls(content["array"], content["num_rows"], records)
            has_name = re.fullmatch(r"pixels-[0-9a-f]+", index.array)
            rows = [record.row for record in records.values() if record.row is not None]
            has_rows = type(index.num_rows) is int and index.num_rows >= 0
            has_rows = has_rows and all(0 <= row < index.num_rows for row in rows)
            if not has_name or not has_rows:
                raise ValueError("it names another file, or impossible rows")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if version != PILLOW_VERSION:
            index.records = {
                name: found for name, found in records.items() if found.row is not None
            }
        return index

    def add(self, file: ImageFile, digest: bytes, row: int | None, reason: str) -> None:
        """Record a file as it is."""
        record = CacheRecord(file.num_bytes, file.mtime_ns, digest, row, reason)
        self.records[file.path] = record

    def write(self, path: Path) -> None:
        """Replace the file, atomically.

        Raises:
            OSError: It cannot be written; then the old one is unchanged.
        """
        records = [
            (
                name,
                record.num_bytes,
                record.mtime_ns,
                record.digest.hex(),
                record.row,
                record.reason,
            )
            for name, record in self.records.items()
        ]
        content = {"array": self.array, "num_rows": self.num_rows, "pillow": PILLOW_VERSION}
        with atomic_write(path) as file:
            file.write(json.dumps(content | {"records": records}).encode())


def parse_record(entry: Any) -> tuple[str, CacheRecord]:
    """Return path and record; the entry is untrusted, and its reason will be printed."""
    path, num_bytes, mtime_ns, digest, row, reason = entry
    numbers = [num_bytes, mtime_ns, *([] if row is None else [row])]
    has_types = isinstance(path, str) and all(type(number) is int for number in numbers)
    if not has_types or not reason.isprintable():
        raise ValueError(f"impossible record {entry!r}")
    return path, CacheRecord(num_bytes, mtime_ns, bytes.fromhex(digest), row, reason)
