"""What torch.save wrote, read as plain data and tensors. Nothing in a file is executed or imported.

`torch.load(weights_only=True)` sees to that, whatever TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD says. But a small file can make
it take any amount of memory. So a file is looked at first: it must be an archive that unpacks to no more than it has,
and what is pickled in it may name nothing but dicts and tensors.
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

NAMING = (
    "GLOBAL",
    "STACK_GLOBAL",
    "INST",
    "EXT1",
    "EXT2",
    "EXT4",
)  # what in a pickle asks for something by its name
KNOWN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|"
    r"torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage"
)


def read_content(path: Path) -> dict[str, Any]:
    """All that a checkpoint holds.

    Raises:
        ValueError: The file is missing, cut short, damaged, or holds more than plain data and tensors.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        with path.open("rb") as file:
            check(file)
            file.seek(0)
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is refused: it is no checkpoint, or cut short or damaged. Nothing in it was executed; "
            "use another copy"
        ) from error
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} is refused: it holds more than plain data and tensors, or is no checkpoint ({reason}). "
            "Nothing in it was executed"
        ) from error
    except Exception as error:  # a flipped bit can raise almost anything
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise ValueError(f"{path} is cut short or damaged ({reason}); use another copy") from error
    return content


def check(file: IO[bytes]) -> None:
    """Look at an archive without unpickling it.

    Raises:
        zipfile.BadZipFile: It is none.
        pickle.UnpicklingError: It holds what no checkpoint of ours does.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise pickle.UnpicklingError("it unpacks to more than it has")
        if damaged := archive.testzip():  # torch itself does not look at the checksums
            raise zipfile.BadZipFile(f"{damaged} is not as it was written")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                for opcode, name, _ in pickletools.genops(archive.read(entry)):
                    if opcode.name in NAMING and not KNOWN.fullmatch(str(name)):
                        raise pickle.UnpicklingError(f"it names {name!r}")
