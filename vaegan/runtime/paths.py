"""The cache folder, and formatting of paths and commands for messages."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from vaegan.runtime.program import SCRIPT, with_launcher, with_program_name

LAST = "last"  # in place of a path: the newest run
HYDRA_TEXT = re.compile(r"[A-Za-z_./][\w ./:@%+-]*(?<! )", re.ASCII)  # read by Hydra without quotes


def cache_home() -> Path:
    """Return the cache folder shared by all runs: $XDG_CACHE_HOME/vaegan or ~/.cache/vaegan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaegan"


def absolute_path(text: str) -> str:
    """Return a path as absolute text, with `~` expanded; URLs, `LAST` and "" are not changed."""
    if "://" in text or text in ("", LAST):
        return text
    return os.path.abspath(os.path.expanduser(text))


def display_path(path: Path) -> str:
    """Return a shell-quoted path, relative to the current folder if it is below that folder."""
    return shlex.quote(shorten_path(path))


def shorten_path(path: Path) -> str:
    """Return a path relative to the current folder if it is below that folder, else absolute."""
    path = path.resolve()
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def path_override(key: str, path: Path) -> str:
    """Return `KEY=PATH` for a printed command: quoted for the shell, and for Hydra if needed."""
    text = shorten_path(path)
    if HYDRA_TEXT.fullmatch(text):
        return f"{key}={shlex.quote(text)}"
    return shell_word(key, quote_for_hydra(text))


def shell_word(key: str, value: str) -> str:
    """Return `KEY=VALUE` quoted for the shell, with double quotes around single ones."""
    if "'" not in value or any(character in value for character in '"$`\\!'):
        return f"{key}={shlex.quote(value)}"
    return f'{key}="{value}"'


def quote_for_hydra(text: str, keep_interpolations: bool = False) -> str:
    """Quote a string for Hydra's override grammar.

    Args:
        text: The string.
        keep_interpolations: False to escape `${`, so that the value is the string itself.
    """
    if not keep_interpolations:
        text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)(')", lambda match: match[1] * 2 + r"\'", text)
    text = re.sub(r"(\\+)$", lambda match: match[1] * 2, text)
    return f"'{text}'"


def shell_command(command: str, plugins: Sequence[str] = ()) -> str:
    """Return a command as the user types it.

    Args:
        command: The command, such as `python train.py stage=vae`.
        plugins: Modules that the command has to import; ignored by other programs than train.py.

    Returns:
        The command with the name of the running program in place of `python train.py`, and with
        the prefix `uv run` if run under uv.
    """
    if plugins and "train.py" in command:
        command += f" plugins=[{','.join(plugins)}]"
    return with_program_name(command) if SCRIPT in command else with_launcher(command)
