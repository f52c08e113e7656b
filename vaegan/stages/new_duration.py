"""Resume a run with another duration than it was started with, to train a finished run further.

This is possible if the result equals that of one uninterrupted run of the new duration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import lightning.pytorch as pl

from vaegan.config import flatten, to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.runtime.collectives import is_rank_zero
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.folder_access import DURATION_KEYS, RESULT_FILE, advise_init
from vaegan.stages.run_folder import RunFolder
from vaegan.stages.stage_checkpoints import (
    TrainingState,
    find_resume_checkpoint,
    write_resume_checkpoint,
)
from vaegan.stages.training_runs import GANRun, VAERun
from vaegan.training.duration import Duration
from vaegan.training.fit import FitSettings, check_resumable

T = TypeVar("T", VAERun, GANRun)
RESTORE = "Use the earlier duration, or start a new run"
EXTEND = "Use a longer duration, or start a new run"


class TrainingPlan(NamedTuple, Generic[T]):
    """Settings and duration of a stage's training, and its saved state."""

    run: T  # settings with all defaults filled in
    duration: Duration
    duration_dependent_settings: list[str]  # settings whose effect depends on the duration
    saved: TrainingState | None = None  # the training so far, if any
    has_new_duration: bool = False  # True if the training so far had another duration


def make_plan(
    folder: Path, saved: TrainingState | None, run: T, resolve: Callable[[T], TrainingPlan[T]]
) -> TrainingPlan[T]:
    """Return the plan of a stage; if it has begun, check that it can continue with this plan.

    Args:
        folder: Folder of the stage.
        saved: The training so far; None: the stage has no intact checkpoint.
        run: Settings of the stage.
        resolve: Returns the plan of given settings.

    Raises:
        ValueError: The stage cannot be continued with this duration.
    """
    plan = resolve(run)._replace(saved=saved)
    if saved is None:
        check_unfinished(folder)
        return plan
    before = resolve(with_duration_of(run, saved))
    is_equally_long = before.duration.num_steps == plan.duration.num_steps
    is_finished = saved.is_finished and is_equally_long
    if saved.num_steps >= plan.duration.num_steps and not is_finished:
        num_images = plan.duration.images_after(saved.num_steps)
        raise ValueError(
            f"{folder} has already been trained for {num_images:,} images, so it cannot be resumed "
            f"with a duration of {plan.duration.num_images:,}. "
            f"{RESTORE if saved.is_finished else EXTEND}"
        )
    has_same_steps = validation_steps(before) == validation_steps(plan)
    if before.duration == plan.duration or (is_finished and has_same_steps):
        return plan
    if obstacles := find_obstacles(saved, before, plan):
        raise ValueError(
            f"{folder} was started with a duration of {before.duration.num_images:,} images. "
            f"Resuming it with {plan.duration.num_images:,} images would not give the same result "
            f"as a single run of this duration, because of: {'; '.join(obstacles)}. {RESTORE}"
            f"{advise_init(folder.name, folder.parent)}"
        )
    return plan._replace(has_new_duration=True)


def check_unfinished(folder: Path) -> None:
    """Check that a stage without an intact checkpoint has not finished.

    Raises:
        ValueError: It has finished.
    """
    if (folder / RESULT_FILE).exists():
        reason = "its checkpoints/last.ckpt is missing or damaged"
        hint = advise_init(folder.name, folder.parent)
        raise ValueError(f"{folder} cannot be trained further: {reason}. {RESTORE}{hint}")


def with_duration_of(run: T, saved: TrainingState) -> T:
    """Return a run with the duration settings of its saved training.

    Raises:
        ValueError: A changed setting has no effect.
    """
    earlier = {key: saved.run["trainer"].get(key) for key in DURATION_KEYS}
    trainer = run.trainer
    is_unused = trainer.max_images is not None and trainer.max_images == earlier["max_images"]
    if is_unused and trainer.max_epochs != earlier["max_epochs"]:
        raise ValueError(
            f"trainer.max_epochs={trainer.max_epochs} has no effect, because trainer.max_images="
            f"{trainer.max_images} takes precedence; add trainer.max_images=null (in the pipeline "
            "with the prefix vae. or gan.)"
        )
    return replace(run, trainer=replace(trainer, **earlier))


def find_obstacles(
    saved: TrainingState, before: TrainingPlan[T], after: TrainingPlan[T]
) -> list[str]:
    """Return the reasons why the result would differ from a single run of the new duration."""
    obstacles = []
    if after.duration_dependent_settings:
        settings = ", ".join(after.duration_dependent_settings)
        obstacles.append(f"settings whose effect depends on the duration ({settings})")
    earlier, changed = flatten(saved.run), flatten(to_plain(after.run))
    known = {key: value for key, value in changed.items() if key in earlier}
    ignored = [*IGNORED_KEYS, *LOCATION_KEYS, *(f"trainer.{key}" for key in DURATION_KEYS)]
    changes = diff_configs(earlier, known, ignored)
    obstacles += [f"a default that has changed: {change}" for change in changes]
    intervals = [validation_interval(plan) for plan in (before, after)]
    if intervals[0] != intervals[1]:
        obstacles.append(f"validations every {intervals[1]} instead of every {intervals[0]}")
    if saved.is_finished:
        duration = before.duration
        if saved.num_steps < duration.num_steps or saved.stopped_early:
            num_images = duration.images_after(saved.num_steps)
            obstacles.append(f"the early end of training, after {num_images:,} images")
        elif not duration.ends_with_validation(before.run.trainer):
            obstacles.append("an additional validation at the end of training")
    return obstacles


def validation_steps(plan: TrainingPlan[T]) -> list[int]:
    """Return the steps after which a run is validated."""
    duration = plan.duration
    if duration.val_interval is not None:
        return list(range(duration.val_interval, duration.num_steps + 1, duration.val_interval))
    per_epoch = duration.steps_per_epoch
    interval = max(1, int(per_epoch * plan.run.trainer.val_check_interval))
    starts = range(0, duration.num_steps, per_epoch)
    return [start + step for start in starts for step in range(interval, per_epoch + 1, interval)]


def validation_interval(plan: TrainingPlan[T]) -> str:
    """Return the interval between the validations of a run, as text."""
    num_steps = plan.duration.val_interval
    if num_steps is not None:
        return f"{num_steps:,} steps across epochs" if num_steps > 1 else "step"
    fraction = plan.run.trainer.val_check_interval
    return f"{fraction:g} epochs" if fraction < 1 else "epoch"


def open_stage(
    run_folder: RunFolder,
    stage: str,
    plan: TrainingPlan[T],
    module: pl.LightningModule,
    data: ImageDataModule,
    settings: FitSettings,
) -> tuple[Path, Path | None]:
    """Return the folder of a stage, and the checkpoint to resume from, if there is one.

    Raises:
        ValueError: The folder cannot be created, none of its checkpoints is intact, or the newest
            one does not fit the run. With a new duration, no file has been changed then.
    """
    is_new = plan.has_new_duration or bool(run_folder.new_durations())
    if plan.saved is not None and is_new and is_rank_zero():
        checkpoint = check_resumable(module, data, settings, plan.saved.path)
        if plan.has_new_duration:
            last = checkpoint if plan.saved.is_finished else None
            reopen_stage(run_folder, stage, last, plan.duration.steps_per_epoch)
    resume_from = find_resume_checkpoint(run_folder.path / stage)
    return run_folder.open_stage(stage), resume_from


def reopen_stage(
    run_folder: RunFolder, stage: str, last: Mapping[str, Any] | None, steps_per_epoch: int
) -> None:
    """Prepare a stage for resuming it with the duration of the run.

    If this is interrupted, the run can still be resumed with the earlier or the new duration.

    Args:
        run_folder: Run folder.
        stage: Stage of the run: vae or gan.
        last: Content of last.ckpt if the training had ended; else None.
        steps_per_epoch: Training steps per epoch.
    """
    folder = run_folder.path / stage
    if last is not None:
        write_resume_checkpoint(folder, last, steps_per_epoch)
    for name in (RESULT_FILE, "run.json"):
        (folder / name).unlink(missing_ok=True)
    run_folder.write_config(accepts_new_duration=True)
    (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
