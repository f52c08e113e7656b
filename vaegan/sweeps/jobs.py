"""Run one job of a sweep: skip it if it is finished, and record a failure so that others go on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, catch_signals
from vaegan.stages.config_diff import diff_configs
from vaegan.stages.execute import execute
from vaegan.stages.run_config import RunConfig, TrainingRun
from vaegan.sweeps.outcome import ConfigMismatch, Outcome, finished_before, is_finite
from vaegan.training.stage_result import StageResult

log = logging.getLogger(__name__)
ATTEMPT = "attempt_"  # prefix of folders with what unfinished attempts left


def run_job(compose: Callable[[], Any], overrides: list[str], folder: Path) -> float | None:
    """Run a job, unless its folder has its outcome already, and write outcome.json.

    An interrupted training is resumed if it was started with the same settings.

    Args:
        compose: Makes the typed run; raises an error if the command line is wrong.
        overrides: Of the task, as typed.
        folder: The job's output folder.

    Returns:
        The run's sweep metric. None if there is no finite one, as of a failed job: optuna then
        counts the trial as failed and continues, while a nan would end its sweep.

    Raises:
        ConfigMismatch: The folder holds a finished job of other settings.
        SystemExit: A signal came, and the sweep must end.
    """
    with catch_signals():
        value = run_unless_finished(compose, overrides, folder)
        if SIGNAL_STATE.signum:
            raise SystemExit(128 + SIGNAL_STATE.signum)  # it came too late to stop this job
    return value


def run_unless_finished(
    compose: Callable[[], Any], overrides: list[str], folder: Path
) -> float | None:
    """Run a job as `run_job` does, but ignore a signal that comes at its very end."""
    config: dict[str, Any] = {}
    tag = ""
    try:
        run = compose()
        config = to_plain(run)
        tag = run.sweep_metric
        outcome = finished_before(folder, config)
        if outcome is not None:
            metric = outcome.metric or "no metric"
            log.info("skipped: %s has its outcome, %s=%s", folder, metric, outcome.value)
            return outcome.value
        result = execute(prepare_folder(run, config, folder), folder)
    except ConfigMismatch:
        raise
    except Interrupted as error:
        message = "%s; resume the sweep by the same command with hydra.sweep.dir=%s"
        log.error(message, error, folder.parent)
        raise SystemExit(error.status) from error  # after an Exception, Hydra runs the other jobs
    except Exception as error:
        is_known = isinstance(error, ValueError | OSError)
        message = str(error) if is_known else f"{type(error).__name__}: {error}"
        log.error("this job of the sweep failed: %s", message, exc_info=not is_known)
        Outcome("failed", overrides, config, tag, None, {}, message).write(folder)
        return None
    outcome = make_outcome(result, overrides, config, tag)
    outcome.write(folder)
    return outcome.value


def prepare_folder(run: RunConfig, config: Mapping[str, Any], folder: Path) -> RunConfig:
    """Return the run, set to resume if it was started in the folder; else clear the folder."""
    if isinstance(run, TrainingRun) and is_started(folder, config):
        return dataclasses.replace(run, resume=True)
    archive_attempt(folder)
    return run


def make_outcome(
    result: StageResult | None, overrides: list[str], config: dict[str, Any], tag: str
) -> Outcome:
    """Return the outcome of a finished job; `tag` is its sweep metric, if the config has one."""
    if result is None:
        return Outcome("finished", overrides, config, "", None, {})
    metrics = {name: value if is_finite(value) else None for name, value in result.metrics.items()}
    tag = tag or result.tag
    return Outcome("finished", overrides, config, tag, metrics[tag] if tag else None, metrics)


def is_started(folder: Path, config: Mapping[str, Any]) -> bool:
    """True if a training with the same settings was started in the folder."""
    path = folder / "config.json"
    return path.exists() and not diff_configs(read_json(path)["config"], config)


def archive_attempt(folder: Path) -> None:
    """Move the stages of a failed or killed attempt to a subfolder, so that the job can restart."""
    left = []
    for path in folder.iterdir():
        is_stage = path.is_dir() and not path.name.startswith((".", ATTEMPT))
        if is_stage or path.name == "config.json":
            left.append(path)
    if left:
        archive = folder / f"{ATTEMPT}{len(list(folder.glob(f'{ATTEMPT}*'))) + 1}"
        archive.mkdir()
        log.info("an earlier attempt did not finish; its files are now in %s", archive)
        for path in left:
            path.rename(archive / path.name)
