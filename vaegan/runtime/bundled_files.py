"""Folders that come with the package: configs and the embedded MNIST."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def bundled_folder(name: str) -> Path:
    """Return a folder of the project: `conf` or `data/mnist`.

    A checkout has it next to the package, the wheel inside the package (see pyproject.toml).
    """
    installed = PACKAGE / "bundled" / name
    return installed if installed.is_dir() else PACKAGE.parent / name
