"""Which settings a result depends on: where they differ, two runs are not the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaegan.config import flatten

IGNORED_KEYS = (  # a result does not depend on these, nor on what stands below them
    "resume",
    "label",
    "checkpoint",
    "trainer.enable_progress_bar",
    "trainer.skip_bad_steps",
    "loader.num_workers",
    "loader.device_share",
    "dataset.cache",
    "dataset.num_threads",
)
LOCATION_KEYS = (
    "dataset.root",
    "vae_ckpt",
)  # of what may have moved; a training that goes on looks whether it is the same


def diff_configs(
    was: Mapping[str, Any], now: Mapping[str, Any], passed_over: Sequence[str] = IGNORED_KEYS
) -> list[str]:
    """Settings that differ between two plain configs and that matter, such as "seed=1 (was 0)"."""
    before, after = flatten(was), flatten(now)
    keys = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    keys = [key for key in keys if not is_among(key, passed_over)]
    return [f"{key}={after.get(key)} (was {before.get(key)})" for key in keys]


def is_among(key: str, names: Sequence[str]) -> bool:
    """Whether a setting is one of those, or stands below one, in whatever stage."""
    return any(f".{name}." in f".{key}." for name in names)
