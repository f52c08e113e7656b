"""Find the differences between the settings of two runs that affect their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vaegan.config import flatten

# Results do not depend on these settings or on settings nested below them.
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
# Files may be moved before a run is resumed; their content is checked instead.
LOCATION_KEYS = ("dataset.root", "vae_ckpt", "init")
# If null, a resumed run keeps the value of the training so far.
KEPT_KEYS = (
    "trainer.precision",
    "loader.batch_size",
    "optimizer.lr",
    "noise_inputs",
    "warm_start.bandwidth",
    "warm_start.feature_weight",
    *(f"{network}.padding" for network in ("encoder", "decoder", "discriminator")),
)
# Options that runs of earlier versions lack; they behaved as if these were false.
NEW_OPTIONS = ("decoder.skip_excitation",)


def diff_configs(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    ignored: Sequence[str] = IGNORED_KEYS,
    kept: Sequence[str] = (),
) -> list[str]:
    """Return the settings that differ between two plain configs, such as "seed=1 (was 0)".

    Args:
        old: Plain config.
        new: Plain config to compare with `old`.
        ignored: Dotted keys to ignore, together with all keys below them.
        kept: Dotted keys that do not differ if they are null in `new`.
    """
    before = flatten(old)
    after = flatten(new)
    return [
        f"{key}={after.get(key)} (was {before.get(key)})"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
        and not is_below(key, ignored)
        and not (after.get(key) is None and is_below(key, kept))
        and not (key not in before and after[key] is False and is_below(key, NEW_OPTIONS))
    ]


def is_below(key: str, names: Sequence[str]) -> bool:
    """True if a dotted key equals one of the names or is nested below one, in any stage."""
    return any(f".{name}." in f".{key}." for name in names)
