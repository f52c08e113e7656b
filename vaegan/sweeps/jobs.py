"""One job of a sweep: skipped if it is finished, and where it fails, the others go on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, catch_signals
from vaegan.stages.config_diff import diff_configs
from vaegan.stages.execute import execute
from vaegan.stages.run_config import TrainingRun
from vaegan.sweeps.outcome import ConfigMismatch, Outcome, finished_before, is_finite

log = logging.getLogger(__name__)
ATTEMPT = "attempt_"


def run_job(compose: Callable[[], Any], overrides: list[str], folder: Path) -> float | None:
    """Run a job, unless its folder has its outcome already, and write outcome.json.

    A training that was stopped goes on, if it was begun with the same settings.

    Args:
        compose: Makes the typed run, or raises what is wrong with it.
        overrides: Of the task, as typed.
        folder: The job's output folder.

    Returns:
        The metric named by the run. None where there is no finite one, as of a failed job: optuna then counts the
        trial as failed and goes on, while a nan would end its sweep.

    Raises:
        ConfigMismatch: The folder holds a finished job of other settings.
        SystemExit: A signal came, and the sweep must end.
    """
    with catch_signals():
        value = attempt(compose, overrides, folder)
        if SIGNAL_STATE.signum:
            raise SystemExit(128 + SIGNAL_STATE.signum)  # it came too late to end this job
    return value


def attempt(compose: Callable[[], Any], overrides: list[str], folder: Path) -> float | None:
    """What `run_job` does, but for a signal that comes at a job's very end."""
    config: dict[str, Any] = {}
    tag = ""
    try:
        run = compose()
        config, tag = to_plain(run), run.sweep_metric
        if (earlier := finished_before(folder, config)) is not None:
            log.info(
                "skipped: %s has its outcome, %s=%s",
                folder,
                earlier.metric or "no metric",
                earlier.value,
            )
            return earlier.value
        if isinstance(run, TrainingRun) and is_started(folder, config):
            run.resume = True
        else:
            archive_attempt(folder)
        result = execute(run, folder)
    except ConfigMismatch:
        raise
    except Interrupted as error:
        log.error(
            "%s; the same command with hydra.sweep.dir=%s goes on with the sweep",
            error,
            folder.parent,
        )
        raise SystemExit(error.status) from error  # Hydra runs the other jobs after an Exception
    except Exception as error:
        known = isinstance(error, ValueError | OSError)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        log.error("this job of the sweep failed: %s", message, exc_info=not known)
        Outcome("failed", overrides, config, tag, None, {}, message).write(folder)
        return None
    metrics = (
        {}
        if result is None
        else {tag: v if is_finite(v) else None for tag, v in result.metrics.items()}
    )
    tag = "" if result is None else run.sweep_metric or result.tag
    outcome = Outcome("finished", overrides, config, tag, metrics[tag] if tag else None, metrics)
    outcome.write(folder)
    return outcome.value


def is_started(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a training of the same settings was begun in the folder."""
    path = folder / "config.json"
    return path.exists() and not diff_configs(read_json(path)["config"], config)


def archive_attempt(folder: Path) -> None:
    """Move what an attempt that failed or was killed has left of its stages, so that the job can start anew."""
    stays = (".", ATTEMPT)
    left = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(stays)]
    left += [path for path in (folder / "config.json",) if path.exists()]
    if left:
        aside = folder / f"{ATTEMPT}{len(list(folder.glob(f'{ATTEMPT}*'))) + 1}"
        aside.mkdir()
        log.info("an earlier attempt did not finish; what it left is now in %s", aside)
        for path in left:
            path.rename(aside / path.name)
