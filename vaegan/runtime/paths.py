"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def cache_home() -> Path:
    """Where things are kept from one run to the next: $XDG_CACHE_HOME/vaegan, or ~/.cache/vaegan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaegan"


def display_path(path: Path) -> str:
    """Path as a shell takes it, relative to the current folder if it lies in it."""
    path, here = path.resolve(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def shell_command(command: str) -> str:
    """A command as the user types it: what sets UV is `uv run`, whose programs are on no other path."""
    return f"uv run {command}" if "UV" in os.environ else command
