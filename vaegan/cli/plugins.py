"""Plugins: modules of the user that are imported first, so that their components are choices.

They are named on the command line, `plugins=[my_module]`, or in a config file that the command line
names, such as an experiment. Nothing that is read from a run folder or a checkpoint is imported.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
CONFIG_DIR_OPTIONS = ("--config-dir", "-cd")


def load_plugins(names: Iterable[str]) -> None:
    """Import modules by name, those of the current folder included.

    Raises:
        ValueError: One of them is not a module name, or cannot be imported.
    """
    for name in names:
        if not MODULE_NAME.fullmatch(str(name)):
            raise ValueError(f"plugins must be names of Python modules; got {name!r}")
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"plugins: the module {name} cannot be imported ({error}); put its file in the "
                "current folder, or install it"
            ) from error


def find_plugins(words: Sequence[str], conf: Path) -> list[str]:
    """Return the plugins that a command line names, itself or in its experiment files.

    Args:
        words: The command line, as typed.
        conf: Folder of the project's configs.
    """
    names: list[str] = []
    folders = [conf, *config_dirs(words)]
    for word in words:
        key, _, value = word.partition("=")
        values = [part.strip(" '\"") for part in value.strip("[]").split(",")]
        if key.lstrip("+") == "plugins":
            names += [name for name in values if name]
        elif key.lstrip("+") == "experiment":
            for experiment in values:
                names += experiment_plugins(experiment, folders)
    return names


def config_dirs(words: Sequence[str]) -> list[Path]:
    """Return the folders given by `--config-dir FOLDER` or `--config-dir=FOLDER`."""
    folders = []
    for option, following in zip(words, [*words[1:], ""], strict=True):
        name, _, value = option.partition("=")
        if name in CONFIG_DIR_OPTIONS:
            folders.append(Path(value or following))
    return folders


def experiment_plugins(experiment: str, folders: Sequence[Path]) -> list[str]:
    """Return the plugins of an experiment file, from the first folder that has it."""
    for folder in folders:
        path = folder / "experiment" / f"{experiment.removesuffix('.yaml')}.yaml"
        if path.is_file():
            content: Any = OmegaConf.to_container(OmegaConf.load(path))
            names = content.get("plugins") if isinstance(content, dict) else None
            if names is not None and not isinstance(names, list):
                raise ValueError(f"plugins in {path} must be a list of modules; got {names!r}")
            return names or []
    return []
