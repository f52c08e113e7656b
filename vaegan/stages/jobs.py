"""One job of a sweep: skipped if it is finished, and where it fails, the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from vaegan.config import to_plain
from vaegan.outcomes import Interrupted, OtherSettings, Outcome, finished_before, is_finite
from vaegan.stages.runs import StageResult

log = logging.getLogger(__name__)
ATTEMPT = "attempt_"


class Executable(Protocol):
    """A run of vaegan.stages.runs."""

    sweep_metric: str

    def execute(self, output_dir: Path) -> StageResult | None:
        """Do it."""


def run_job(compose: Callable[[], Executable], overrides: list[str], folder: Path) -> float | None:
    """Run a job, unless its folder has its outcome already, and write outcome.json.

    Args:
        compose: Makes the typed run, or raises what is wrong with it.
        overrides: Of the task, as typed.
        folder: The job's output folder.

    Returns:
        The metric named by the run. None where there is no finite one, as of a failed job: optuna then counts the
        trial as failed and goes on, while a nan would end its sweep.

    Raises:
        OtherSettings: The folder holds a finished job of other settings.
        SystemExit: A signal came, and the sweep must end.
    """
    config: dict[str, Any] = {}
    tag = ""
    try:
        run = compose()
        config, tag = to_plain(run), run.sweep_metric
        if (earlier := finished_before(folder, config)) is not None:
            log.info("skipped: %s has its outcome, %s=%s", folder, earlier.metric or "no metric", earlier.value)
            return earlier.value
        set_aside(folder)
        result = run.execute(folder)
    except OtherSettings:
        raise
    except Interrupted as error:
        raise SystemExit(f"error: {error}") from error  # Hydra runs the other jobs after an Exception
    except Exception as error:
        known = isinstance(error, ValueError | OSError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        log.error("this job of the sweep failed: %s", message, exc_info=not known)
        Outcome("failed", overrides, config, tag, None, {}, message).write(folder)
        return None
    metrics = {} if result is None else {tag: v if is_finite(v) else None for tag, v in result.metrics.items()}
    tag = "" if result is None else run.sweep_metric  # stage=evaluate chooses it when it knows the model
    outcome = Outcome("finished", overrides, config, tag, metrics[tag] if tag else None, metrics)
    outcome.write(folder)
    return outcome.value


def set_aside(folder: Path) -> None:
    """Move what an attempt that failed or was killed has left of its stages, so that the job can start anew."""
    left = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", ATTEMPT))]
    if left:
        aside = folder / f"{ATTEMPT}{len(list(folder.glob(f'{ATTEMPT}*'))) + 1}"
        aside.mkdir()
        log.info("an earlier attempt did not finish; what it left is now in %s", aside)
        for path in left:
            path.rename(aside / path.name)
