"""Load torch.save files as plain data and tensors, without executing or importing anything.

`torch.load(weights_only=True)` guarantees this, even if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.
However, a small file can still make it allocate any amount of memory. So the archive is checked
first: it must not decompress to more than its own size, and its pickles may reference only dicts
and tensors.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

# Pickle opcodes that look up an object by name, and the names that a checkpoint needs.
NAMING_OPCODES = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
ALLOWED_NAMES = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|"
    r"torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


def load_archive(path: Path) -> dict[str, Any]:
    """Load the content of a checkpoint file.

    Raises:
        ValueError: The file is missing, truncated or damaged, or contains more than plain data and
            tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        with path.open("rb") as file:
            check_archive(file)
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is refused: it is truncated, damaged or not a checkpoint. Nothing in it was "
            "executed; use another copy"
        ) from error
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it contains more than plain data and tensors, or is not a "
            f"checkpoint ({first_line(error)}). Nothing in it was executed"
        ) from error
    except Exception as error:  # a flipped bit can raise almost anything
        raise ValueError(
            f"{path} is truncated or damaged ({first_line(error)}); use another copy"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of an error. Later lines of torch's recommend unsafe loading."""
    return (str(error) or type(error).__name__).partition("\n")[0]


def check_archive(file: IO[bytes]) -> None:
    """Check the sizes, the checksums and the pickles of an archive without unpickling it.

    Raises:
        zipfile.BadZipFile: The file is damaged or not an archive.
        pickle.UnpicklingError: It decompresses to more than its own size, or a pickle references
            objects other than dicts and tensors.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        num_bytes = sum(entry.file_size for entry in entries)
        if num_bytes > file.seek(0, os.SEEK_END):
            raise pickle.UnpicklingError("it decompresses to more than its own size")
        if damaged := archive.testzip():  # torch ignores the checksums
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                check_pickle(archive.read(entry))


def check_pickle(content: bytes) -> None:
    """Check that a pickle references only dicts and tensors.

    Raises:
        pickle.UnpicklingError: It references another object.
    """
    for opcode, name, _ in pickletools.genops(content):
        if opcode.name in NAMING_OPCODES and not ALLOWED_NAMES.fullmatch(str(name)):
            raise pickle.UnpicklingError(f"it references {name!r}")
