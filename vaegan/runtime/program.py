"""Name of the running program, for the commands in messages."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = "python train.py"  # as all messages and docs write it


def with_program_name(text: str) -> str:
    """Replace `python train.py` in a message by the program that the user has started."""
    path = Path(sys.argv[0])
    if path.stem == "vaegan":
        return text.replace(SCRIPT, "vaegan")
    if path.parts[-2:] == ("vaegan", "__main__.py"):
        return text.replace(SCRIPT, "python -m vaegan")
    return text
