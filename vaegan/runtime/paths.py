"""The cache folder, and formatting of paths and commands for messages."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def cache_home() -> Path:
    """Return the cache folder shared by all runs: $XDG_CACHE_HOME/vaegan or ~/.cache/vaegan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaegan"


def display_path(path: Path) -> str:
    """Return a shell-quoted path, relative to the current folder if it is below that folder."""
    path = path.resolve()
    folder = Path.cwd()
    return shlex.quote(str(path.relative_to(folder) if path.is_relative_to(folder) else path))


def shell_command(command: str, plugins: Sequence[str] = ()) -> str:
    """Return a command as the user types it.

    Args:
        command: The command, such as `python train.py stage=vae`.
        plugins: Modules that the command has to import; ignored by other programs than train.py.

    Returns:
        The command with the prefix `uv run` if run under uv.
    """
    if plugins and "train.py" in command:
        command += f" plugins=[{','.join(plugins)}]"
    return f"uv run {command}" if "UV" in os.environ else command
