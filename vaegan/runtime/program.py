"""Name of the running program, for the commands in messages."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

SCRIPT = "python train.py"  # as all messages and docs write it


def with_program_name(text: str) -> str:
    """Replace `python train.py` in a message by the program that the user has started.

    The program has the prefix `uv run` if run under uv.
    """
    path = Path(sys.argv[0])
    program = SCRIPT
    if path.stem == "vaegan":
        program = "vaegan"
    elif path.parts[-2:] == ("vaegan", "__main__.py"):
        program = "python -m vaegan"
    return re.sub(f"(?:uv run )?{re.escape(SCRIPT)}", with_launcher(program), text)


def with_launcher(command: str) -> str:
    """Prepend `uv run` to a command if this program runs under uv."""
    return f"uv run {command}" if "UV" in os.environ else command
