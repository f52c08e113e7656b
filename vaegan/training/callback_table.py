"""Table of the callbacks that `callbacks=[NAME]` adds to training.

To add a callback, write a Lightning callback without constructor arguments and add a line to
CALLBACKS below, or register it in a plugin: `CALLBACKS["my_callback"] = "my_module:MyCallback"`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from vaegan.config import did_you_mean

CALLBACKS: dict[str, str] = {  # "module:class", imported when training starts
    "device_stats": "lightning.pytorch.callbacks:DeviceStatsMonitor",
    "timer": "lightning.pytorch.callbacks:Timer",
}


def check_callbacks(names: Sequence[str]) -> None:
    """Check that all callbacks are in the table.

    Raises:
        ValueError: A name is not in the table.
    """
    known = ", ".join(sorted(CALLBACKS))
    for name in names:
        if name not in CALLBACKS:
            near = did_you_mean(name, CALLBACKS)
            raise ValueError(
                f"callbacks: unknown callback {name!r}.{near} Known: {known}. To use your own "
                "callback, load the module that registers it with plugins=[MODULE]"
            )


def build_callbacks(names: Sequence[str]) -> list[Any]:
    """Import and construct callbacks by name, in the given order."""
    callbacks = []
    for name in names:
        module, _, class_name = CALLBACKS[name].partition(":")
        callbacks.append(getattr(importlib.import_module(module), class_name)())
    return callbacks
