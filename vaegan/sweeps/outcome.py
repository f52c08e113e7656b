"""Outcome of a sweep job, stored in outcome.json.

The file is plain JSON and written atomically. It is used to skip finished jobs and to summarize the
sweep.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaegan.config import require
from vaegan.runtime.atomic_files import write_json
from vaegan.stages.config_diff import diff_configs

OUTCOME_FILE = "outcome.json"


class ConfigMismatch(ValueError):
    """A folder contains a finished job with another config, or a damaged outcome."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a finished or failed job."""

    status: str  # finished or failed
    overrides: list[str]  # overrides of the job, as typed
    config: dict[str, Any]  # plain config of the run; empty if the command line was invalid
    metric: str  # tag of the metric returned to the sweep; empty if the stage has none
    value: float | None  # value of `metric`; None if it is not finite
    metrics: dict[str, float | None]  # final metrics by tag; None if not finite
    error: str | None = None  # error message; None if the job did not fail

    def __post_init__(self) -> None:
        require(self.status in ("finished", "failed"), "status", "finished or failed", self.status)
        is_list = isinstance(self.overrides, list)
        are_strings = is_list and all(isinstance(word, str) for word in self.overrides)
        require(are_strings, "overrides", "a list of strings", self.overrides)
        require(isinstance(self.config, dict), "config", "a mapping", self.config)
        require(isinstance(self.metric, str), "metric", "a tag", self.metric)
        require(isinstance(self.metrics, dict), "metrics", "a mapping", self.metrics)
        values = [self.value, *self.metrics.values()]
        are_finite = all(value is None or is_finite(value) for value in values)
        require(are_finite, "value", "finite, or null", values)
        is_message = self.error is None or isinstance(self.error, str)
        require(is_message, "error", "a message, or null", self.error)

    def write(self, folder: Path) -> None:
        """Write outcome.json, replacing an earlier one."""
        write_json(folder / OUTCOME_FILE, dataclasses.asdict(self))


def is_finite(value: Any) -> bool:
    """True if a value is a finite number, which JSON can represent."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_outcome(folder: Path) -> Outcome | None:
    """Read the outcome of a job from its folder; None if the job has not ended.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / OUTCOME_FILE
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is damaged ({cause}); delete it to run the job again") from error


def find_finished_outcome(folder: Path, config: dict[str, Any]) -> Outcome | None:
    """Return the outcome of a finished job; None if the job must run.

    Args:
        folder: Output folder of the job.
        config: Plain config of the run that would be written there.

    Raises:
        ConfigMismatch: The finished job has another config, or its outcome is damaged.
    """
    try:
        outcome = read_outcome(folder)
    except ValueError as error:
        raise ConfigMismatch(str(error)) from error
    if outcome is None or outcome.status != "finished":
        return None
    if differences := diff_configs(outcome.config, config):
        raise ConfigMismatch(
            f"{folder} contains a finished job with other settings ({', '.join(differences)}) and "
            "will not be overwritten; set hydra.sweep.dir to a new folder"
        )
    return outcome
