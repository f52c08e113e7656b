"""The cache folder, and paths and commands as the user types them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def cache_home() -> Path:
    """Return the folder of caches that runs share: $XDG_CACHE_HOME/vaegan or ~/.cache/vaegan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaegan"


def display_path(path: Path) -> str:
    """Quote a path for a shell, relative to the current folder if it lies in it."""
    path = path.resolve()
    folder = Path.cwd()
    return shlex.quote(str(path.relative_to(folder) if path.is_relative_to(folder) else path))


def shell_command(command: str) -> str:
    """Prefix a command with `uv run` under uv, which puts its programs on no other path."""
    return f"uv run {command}" if "UV" in os.environ else command
