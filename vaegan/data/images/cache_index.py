"""Index of an image cache: a JSON file that maps each image file to its row."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vaegan.data.images.decoding import PILLOW_VERSION, ImageTraits
from vaegan.data.images.scanning import ImageFile
from vaegan.runtime.atomic_files import atomic_write


class CacheRecord(NamedTuple):
    """Size, modification time, content hash, row or error, and traits of a file."""

    num_bytes: int
    mtime_ns: int  # modification time
    digest: bytes  # hash of the content
    row: int | None  # row in the array; None for a broken image
    reason: str  # description of the error; empty for a good image
    traits: ImageTraits = ImageTraits()

    def matches(self, file: ImageFile) -> bool:
        """True if the file has not changed since it was recorded."""
        return self.num_bytes == file.num_bytes and self.mtime_ns == file.mtime_ns


def new_array_name() -> str:
    """Return a new, unique name for an array."""
    return f"pixels-{secrets.token_hex(4)}"


@dataclass
class CacheIndex:
    """Name of the pixel array, and the row of each file in it."""

    array: str = field(default_factory=new_array_name)  # file name; changes whenever rows move
    num_rows: int = 0  # rows used so far; they are never overwritten
    records: dict[str, CacheRecord] = field(default_factory=dict)  # by path

    @classmethod
    def read(cls, path: Path) -> CacheIndex:
        """Read and validate an index.

        If another version of Pillow wrote it, the records of broken images are dropped: this
        version may be able to decode them.

        Raises:
            OSError: The index cannot be read.
            ValueError: The index is damaged.
        """
        try:
            content = json.loads(path.read_bytes())
            version = content["pillow"]
            records = dict(map(parse_record, content["records"]))
            index = cls(content["array"], content["num_rows"], records)
            is_valid_name = re.fullmatch(r"pixels-[0-9a-f]+", index.array)
            rows = [record.row for record in records.values() if record.row is not None]
            has_valid_rows = type(index.num_rows) is int and index.num_rows >= 0
            has_valid_rows = has_valid_rows and all(0 <= row < index.num_rows for row in rows)
            if not is_valid_name or not has_valid_rows:
                raise ValueError("invalid array name or row numbers")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if version != PILLOW_VERSION:
            index.records = {
                name: record for name, record in records.items() if record.row is not None
            }
        return index

    def decoded_contents(self) -> dict[bytes, tuple[int, ImageTraits]]:
        """Return row and traits of each decoded content, by its hash."""
        return {
            record.digest: (record.row, record.traits)
            for record in self.records.values()
            if record.row is not None
        }

    def add(
        self, file: ImageFile, digest: bytes, row: int | None, reason: str, traits: ImageTraits
    ) -> None:
        """Record the current state of a file."""
        record = CacheRecord(file.num_bytes, file.mtime_ns, digest, row, reason, traits)
        self.records[file.path] = record

    def write(self, path: Path) -> None:
        """Replace the index file atomically.

        Raises:
            OSError: Writing failed. The old file is unchanged.
        """
        records = [
            (
                name,
                record.num_bytes,
                record.mtime_ns,
                record.digest.hex(),
                record.row,
                record.reason,
                *record.traits,
            )
            for name, record in self.records.items()
        ]
        content = {"array": self.array, "num_rows": self.num_rows, "pillow": PILLOW_VERSION}
        with atomic_write(path) as file:
            file.write(json.dumps(content | {"records": records}).encode())


def parse_record(entry: Any) -> tuple[str, CacheRecord]:
    """Parse an untrusted entry of the index into a path and its record.

    Raises:
        ValueError: The entry is invalid, or its reason is not printable.
    """
    path, num_bytes, mtime_ns, digest, row, reason, num_bits, is_stack = entry
    numbers = [num_bytes, mtime_ns, num_bits, *([] if row is None else [row])]
    has_types = isinstance(path, str) and all(type(number) is int for number in numbers)
    if not has_types or not reason.isprintable():
        raise ValueError(f"invalid record {entry!r}")
    traits = ImageTraits(num_bits, bool(is_stack))
    return path, CacheRecord(num_bytes, mtime_ns, bytes.fromhex(digest), row, reason, traits)
