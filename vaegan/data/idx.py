"""Reader of IDX, the file format of MNIST and its relatives: big-endian header, then unsigned bytes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import torch
from torch import Tensor


def read_idx(path: Path, sha256: str | None = None) -> Tensor:
    """Array of bytes in an IDX file, gzip-compressed where its name ends in .gz, as uint8.

    Args:
        path: The file.
        sha256: Expected sum of the unpacked content, in hexadecimal; None to check nothing.

    Raises:
        ValueError: The file is missing, truncated, corrupted or no IDX file of bytes.
    """
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"data file {path} is cut short or damaged ({error}); restore it from its origin"
        ) from error
    except OSError as error:
        raise ValueError(
            f"data file {path} cannot be read ({error.strerror}); set dataset.root, or mend it"
        ) from error
    if sha256 and hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(
            f"data file {path} is damaged: its content's SHA-256 is not {sha256}; restore it from its origin"
        )
    num_dims = raw[3] if raw[:3] == b"\0\0\x08" else 0  # 0x08: unsigned bytes
    start = 4 + 4 * num_dims
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    if num_dims == 0 or len(raw) - start != torch.Size(shape).numel():
        raise ValueError(
            f"data file {path} is no IDX file of bytes, or its size is not the one that it states"
        )
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=start).reshape(shape)
