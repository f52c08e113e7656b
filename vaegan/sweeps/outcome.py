"""What a job of a sweep leaves in its folder: outcome.json, by which it is skipped later and shown in the summary.

The file is plain JSON, and written in one step: after a crash there is the whole of it or none.
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

FILE = "outcome.json"


class ConfigMismatch(ValueError):
    """A folder holds a finished job of another config, or an outcome that cannot be read."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    status: str  # finished, failed
    overrides: list[str]  # of the task, as typed
    config: dict[str, Any]  # plain, of the run; empty where the command line was refused
    metric: str  # tag of what is returned to the sweep; empty where there is none
    value: float | None  # of that metric; None where there is no finite one
    metrics: dict[str, float | None]  # by tag
    error: str | None = None  # what a failed job says

    def __post_init__(self) -> None:
        values = [self.value, *self.metrics.values()] if isinstance(self.metrics, dict) else []
        require(self.status in ("finished", "failed"), "status", "finished or failed", self.status)
        words = isinstance(self.overrides, list) and all(
            isinstance(word, str) for word in self.overrides
        )
        require(words, "overrides", "a list of strings", self.overrides)
        require(isinstance(self.config, dict), "config", "a mapping", self.config)
        require(isinstance(self.metric, str), "metric", "a tag", self.metric)
        require(isinstance(self.metrics, dict), "metrics", "a mapping", self.metrics)
        require(
            all(value is None or is_finite(value) for value in values),
            "value",
            "finite, or null",
            values,
        )
        require(
            self.error is None or isinstance(self.error, str),
            "error",
            "a message, or null",
            self.error,
        )

    def write(self, folder: Path) -> None:
        """Write outcome.json, in the place of an earlier one."""
        write_json(folder / FILE, dataclasses.asdict(self))


def is_finite(value: Any) -> bool:
    """Whether it is a number that JSON has."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_outcome(folder: Path) -> Outcome | None:
    """How the job of a folder ended; None if it did not.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        message = (
            f"{path} is damaged ({type(error).__name__}: {error}); delete it to run the job again"
        )
        raise ValueError(message) from error


def finished_before(folder: Path, config: dict[str, Any]) -> Outcome | None:
    """The outcome of a job that needs not run again, if there is one.

    Args:
        folder: The job's output folder.
        config: Plain config of the run that is to go there.

    Raises:
        ConfigMismatch: The finished job there has another config, or its outcome is damaged.
    """
    try:
        found = read_outcome(folder)
    except ValueError as error:
        raise ConfigMismatch(str(error)) from error
    if found is None or found.status != "finished":
        return None
    if differ := diff_configs(found.config, config):
        raise ConfigMismatch(
            f"{folder} holds a finished job of other settings ({', '.join(differ)}), which is never overwritten; "
            "set hydra.sweep.dir to a new folder"
        )
    return found
