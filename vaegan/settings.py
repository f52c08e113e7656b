"""Which settings a result depends on: where they differ, two runs are not the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaegan.config import flatten

CHANGEABLE = (  # a result does not depend on these, nor on what stands below them
    "resume",
    "label",
    "checkpoint",
    "trainer.enable_progress_bar",
    "trainer.skip_bad_steps",
    "loader.num_workers",
    "loader.device_share",
    "dataset.root",
    "dataset.cache",
    "dataset.num_threads",
)


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two plain configs and that matter, such as "seed=1 (was 0)"."""
    before, after = flatten(was), flatten(now)
    keys = [key for key in sorted(before | after) if before.get(key) != after.get(key) and not is_changeable(key)]
    return [f"{key}={after.get(key)} (was {before.get(key)})" for key in keys]


def is_changeable(key: str) -> bool:
    """Whether a result does not depend on a setting."""
    return any(f".{name}." in f".{key}." for name in CHANGEABLE)
