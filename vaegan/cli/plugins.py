"""Plugins: user modules that are imported at startup, so that they can register components.

A plugin is named on the command line (`plugins=[my_module]`) or in an experiment file that the
command line selects. Modules named in a run folder or a checkpoint are never imported.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
CONFIG_DIR_OPTIONS = ("--config-dir", "-cd")


def load_plugins(names: Iterable[str]) -> None:
    """Import modules by name. The current folder is searched as well.

    Raises:
        ValueError: A name is not a module name, or the module cannot be imported.
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
                f"plugins: the module {name} cannot be imported ({error}). Put its file in the "
                "current folder, or install it"
            ) from error


def find_plugins(args: Sequence[str], conf: Path) -> list[str]:
    """Return the plugins named on a command line or in the experiment files that it selects.

    Args:
        args: Arguments of the command line.
        conf: Config folder of this project.
    """
    names: list[str] = []
    folders = [conf, *config_dirs(args)]
    for arg in args:
        key, _, value = arg.partition("=")
        values = [part.strip(" '\"") for part in value.strip("[]").split(",")]
        if key.lstrip("+") == "plugins":
            names += [name for name in values if name not in ("", "null")]
        elif key.lstrip("+") == "experiment":
            for experiment in values:
                names += experiment_plugins(experiment, folders)
    return names


def config_dirs(args: Sequence[str]) -> list[Path]:
    """Return the folders given by `--config-dir FOLDER` or `--config-dir=FOLDER`."""
    folders = []
    for arg, next_arg in pairwise([*args, ""]):
        option, _, value = arg.partition("=")
        if option in CONFIG_DIR_OPTIONS:
            folders.append(Path(value or next_arg).expanduser())
    return folders


def experiment_plugins(experiment: str, folders: Sequence[Path]) -> list[str]:
    """Return the plugins of an experiment; the first folder that contains its file is used."""
    from omegaconf import OmegaConf  # imported late, for --help and tab completion

    for folder in folders:
        path = folder / "experiment" / f"{experiment.removesuffix('.yaml')}.yaml"
        if path.is_file():
            content: Any = OmegaConf.to_container(OmegaConf.load(path))
            names = content.get("plugins") if isinstance(content, dict) else None
            if names is not None and not isinstance(names, list):
                raise ValueError(f"plugins in {path} must be a list of module names; got {names!r}")
            return names or []
    return []
