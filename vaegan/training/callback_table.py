"""The table of callbacks that `callbacks=[NAME]` adds to a training.

To add one, write a Lightning callback without arguments and add a line below, or in a plugin:
`CALLBACKS["my_callback"] = "my_module:MyCallback"`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from vaegan.config import did_you_mean

CALLBACKS: dict[str, str] = {  # "module:class", imported when a training starts
    "device_stats": "lightning.pytorch.callbacks:DeviceStatsMonitor",
    "timer": "lightning.pytorch.callbacks:Timer",
}


def check_callbacks(names: Sequence[str]) -> None:
    """Check that all callbacks are in the table.

    Raises:
        ValueError: One is not.
    """
    known = ", ".join(sorted(CALLBACKS))
    for name in names:
        if name not in CALLBACKS:
            near = did_you_mean(name, CALLBACKS)
            raise ValueError(
                f"callbacks: unknown callback {name!r}.{near} Known: {known}, and your own "
                "(plugins=[MODULE])"
            )


def build_callbacks(names: Sequence[str]) -> list[Any]:
    """Import and construct callbacks by name."""
    callbacks = []
    for name in names:
        module, _, class_name = CALLBACKS[name].partition(":")
        callbacks.append(getattr(importlib.import_module(module), class_name)())
    return callbacks
