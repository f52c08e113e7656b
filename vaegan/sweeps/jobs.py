"""Run one job of a sweep: skip it if finished, and record failures so that other jobs still run."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.paths import path_override
from vaegan.runtime.program import with_program_name
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, catch_signals
from vaegan.stages.config_diff import diff_configs
from vaegan.stages.execute import execute
from vaegan.stages.folder_access import CONFIG_FILE
from vaegan.stages.run_config import RunConfig, TrainingRun
from vaegan.sweeps.outcome import ConfigMismatch, Outcome, find_finished_outcome, is_finite
from vaegan.training.stage_result import StageResult

log = logging.getLogger(__name__)
ATTEMPT_PREFIX = "attempt_"  # prefix of the subfolders with files of unfinished attempts


def run_job(compose: Callable[[], Any], overrides: list[str], folder: Path) -> float | None:
    """Run a job and write outcome.json, unless its folder already contains a finished outcome.

    An interrupted training job is resumed if it was started with the same settings.

    Args:
        compose: Builds the typed run config; raises an error if the command line is invalid.
        overrides: Overrides of the job, as typed.
        folder: Output folder of the job.

    Returns:
        Sweep metric of the run. None if it is missing or not finite, or if the job failed: Optuna
        then marks the trial as failed and continues, while nan would end the sweep.

    Raises:
        ConfigMismatch: The folder contains a finished job with other settings.
        SystemExit: A termination signal was received.
    """
    with catch_signals():
        value = run_unless_finished(compose, overrides, folder)
        if SIGNAL_STATE.signum:
            raise SystemExit(128 + SIGNAL_STATE.signum)  # the job finished before it was stopped
    return value


def run_unless_finished(
    compose: Callable[[], Any], overrides: list[str], folder: Path
) -> float | None:
    """Run a job like `run_job`, but ignore a signal received after the job finished."""
    config: dict[str, Any] = {}
    tag = ""
    try:
        run = compose()
        config = to_plain(run)
        tag = run.sweep_metric
        outcome = find_finished_outcome(folder, config)
        if outcome is not None:
            metric = outcome.metric or "no metric"
            log.info("skipped: %s has already finished, %s=%s", folder, metric, outcome.value)
            return outcome.value
        result = execute(prepare_folder(run, config, folder), folder)
    except ConfigMismatch:
        raise
    except Interrupted as error:
        message = "%s; to resume the sweep, repeat the command with %s"
        log.error(message, error, path_override("hydra.sweep.dir", folder.parent))
        raise SystemExit(error.status) from error  # an Exception would not stop the sweep
    except Exception as error:
        is_known = isinstance(error, ValueError | OSError)
        message = str(error) if is_known else f"{type(error).__name__}: {error}"
        message = with_program_name(message)
        log.error("this sweep job failed: %s", message, exc_info=not is_known)
        Outcome("failed", overrides, config, tag, None, {}, message).write(folder)
        stop_if_gpu_is_unusable(folder.parent)
        return None
    outcome = make_outcome(result, overrides, config, tag)
    outcome.write(folder)
    return outcome.value


def stop_if_gpu_is_unusable(sweep_folder: Path) -> None:
    """Stop the sweep if a CUDA error, such as a failed assertion in a kernel, is permanent.

    Every later use of the GPU by this process would fail too.

    Raises:
        SystemExit: This process can no longer use the GPU.
    """
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        message = "this process can no longer use the GPU; to run the remaining jobs, repeat "
        log.error(message + "the command with %s", path_override("hydra.sweep.dir", sweep_folder))
        raise SystemExit(1) from error


def prepare_folder(run: RunConfig, config: Mapping[str, Any], folder: Path) -> RunConfig:
    """Set the run to resume if it was started in the folder; else archive any leftover files."""
    if isinstance(run, TrainingRun) and is_started(folder, config):
        return dataclasses.replace(run, resume=True)
    archive_attempt(folder)
    return run


def make_outcome(
    result: StageResult | None, overrides: list[str], config: dict[str, Any], tag: str
) -> Outcome:
    """Return the outcome of a finished job; `tag` is its sweep metric, or "" if unset."""
    if result is None:
        return Outcome("finished", overrides, config, "", None, {})
    metrics = {name: value if is_finite(value) else None for name, value in result.metrics.items()}
    tag = tag or result.tag
    return Outcome("finished", overrides, config, tag, metrics[tag] if tag else None, metrics)


def is_started(folder: Path, config: Mapping[str, Any]) -> bool:
    """True if training with the same settings was started in the folder."""
    path = folder / CONFIG_FILE
    return path.exists() and not diff_configs(read_json(path)["config"], config)


def archive_attempt(folder: Path) -> None:
    """Move the files of a failed or killed attempt to a subfolder, so that the job can restart."""
    leftovers = []
    for path in folder.iterdir():
        is_stage = path.is_dir() and not path.name.startswith((".", ATTEMPT_PREFIX))
        if is_stage or path.name == CONFIG_FILE:
            leftovers.append(path)
    if leftovers:
        number = len(list(folder.glob(f"{ATTEMPT_PREFIX}*"))) + 1
        archive = folder / f"{ATTEMPT_PREFIX}{number}"
        archive.mkdir()
        log.info("an earlier attempt did not finish; its files were moved to %s", archive)
        for path in leftovers:
            path.rename(archive / path.name)
