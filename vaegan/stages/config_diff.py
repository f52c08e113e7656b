"""Differences between the settings of two runs, as far as a result depends on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaegan.config import flatten

# A result depends neither on these settings nor on those below them.
IGNORED_KEYS = (
    "resume",
    "label",
    "plugins",
    "checkpoint",
    "trainer.enable_progress_bar",
    "trainer.skip_bad_steps",
    "loader.num_workers",
    "loader.device_share",
    "dataset.cache",
    "dataset.num_threads",
)
# Files that may have moved; a run that resumes checks that their content is the same.
LOCATION_KEYS = ("dataset.root", "vae_ckpt")


def diff_configs(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored: Sequence[str] = IGNORED_KEYS
) -> list[str]:
    """Return the settings that differ between two plain configs, such as "seed=1 (was 0)"."""
    before = flatten(old)
    after = flatten(new)
    return [
        f"{key}={after.get(key)} (was {before.get(key)})"
        for key in sorted(before | after)
        if before.get(key) != after.get(key) and not is_below(key, ignored)
    ]


def is_below(key: str, names: Sequence[str]) -> bool:
    """Return True if a dotted key is one of the names, or below one, in whatever stage."""
    return any(f".{name}." in f".{key}." for name in names)
