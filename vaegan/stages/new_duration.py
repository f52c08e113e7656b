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
from vaegan.stages.stage_checkpoints import SavedTraining, find_resume_checkpoint, write_continued
from vaegan.stages.training_runs import GANRun, VAERun
from vaegan.training.duration import Duration
from vaegan.training.fit import FitSettings, check_resumable

T = TypeVar("T", VAERun, GANRun)
RESTORE = "Restore the duration, or start a new run"


class Plan(NamedTuple, Generic[T]):
    """Training of a stage."""

    run: T  # settings with all defaults filled in
    duration: Duration
    settings_by_duration: list[str]  # settings whose effect depends on the duration
    saved: SavedTraining | None = None  # the training so far, if any
    is_changed: bool = False  # True if the training so far had another duration


def make_plan(
    folder: Path, saved: SavedTraining | None, run: T, resolve: Callable[[T], Plan[T]]
) -> Plan[T]:
    """Return the plan of a stage; if it has begun, check that it can continue with this plan.

    Args:
        folder: Folder of the stage.
        saved: The training so far; None: the stage has no intact checkpoint.
        run: Settings of the stage.
        resolve: Returns the plan of given settings.

    Raises:
        ValueError: The result would differ from that of one run of this duration.
    """
    plan = resolve(run)._replace(saved=saved)
    if saved is None:
        check_unfinished(folder)
        return plan
    before = resolve(with_duration_of(run, saved))
    is_past = saved.num_steps >= plan.duration.num_steps
    is_same = before.duration == plan.duration and not is_past
    if is_same or (saved.is_finished and before.duration.num_steps == plan.duration.num_steps):
        return plan
    if is_past:
        num_images = plan.duration.images_after(saved.num_steps)
        raise ValueError(
            f"{folder} has already been trained for {num_images:,} images, so it cannot be resumed "
            f"with a duration of {plan.duration.num_images:,}. {RESTORE}"
        )
    if obstacles := find_obstacles(saved, before, plan):
        raise ValueError(
            f"{folder} was started with a duration of {before.duration.num_images:,} images. With "
            f"{plan.duration.num_images:,} images, the result would differ from that of one run "
            f"of this duration: {'; '.join(obstacles)}. {RESTORE}"
            f"{advise_init(folder.name, folder.parent)}"
        )
    return plan._replace(is_changed=True)


def check_unfinished(folder: Path) -> None:
    """Check that a stage without an intact checkpoint has not finished.

    Raises:
        ValueError: It has finished.
    """
    if (folder / RESULT_FILE).exists():
        file = "its checkpoints/last.ckpt is missing or damaged"
        hint = advise_init(folder.name, folder.parent)
        raise ValueError(f"{folder} cannot be trained further: {file}. {RESTORE}{hint}")


def with_duration_of(run: T, saved: SavedTraining) -> T:
    """Return a run with the settings of the duration of a saved training.

    Raises:
        ValueError: A changed setting has no effect.
    """
    earlier = {key: saved.run["trainer"].get(key) for key in DURATION_KEYS}
    trainer = run.trainer
    is_unused = trainer.max_images is not None and trainer.max_images == earlier["max_images"]
    if is_unused and trainer.max_epochs != earlier["max_epochs"]:
        raise ValueError(
            f"trainer.max_epochs={trainer.max_epochs} has no effect, because trainer.max_images="
            f"{trainer.max_images} takes precedence; add trainer.max_images=null"
        )
    return replace(run, trainer=replace(trainer, **earlier))


def find_obstacles(saved: SavedTraining, before: Plan[T], after: Plan[T]) -> list[str]:
    """Return the reasons why a run of the new duration would have begun differently."""
    obstacles = []
    if after.settings_by_duration:
        settings = ", ".join(after.settings_by_duration)
        obstacles.append(f"settings whose effect depends on the duration ({settings})")
    earlier, changed = flatten(saved.run), flatten(to_plain(after.run))
    known = {key: value for key, value in changed.items() if key in earlier}
    ignored = [*IGNORED_KEYS, *LOCATION_KEYS, *(f"trainer.{key}" for key in DURATION_KEYS)]
    changes = diff_configs(earlier, known, ignored)
    obstacles += [f"another default: {change}" for change in changes]
    intervals = [validation_interval(plan) for plan in (before, after)]
    if intervals[0] != intervals[1]:
        obstacles.append(f"validations every {intervals[1]}, instead of every {intervals[0]}")
    if saved.is_finished:
        duration = before.duration
        if saved.num_steps < duration.num_steps or saved.stopped_early:
            num_images = duration.images_after(saved.num_steps)
            obstacles.append(f"the training ended early, after {num_images:,} images")
        elif not duration.ends_with_validation(before.run.trainer):
            obstacles.append("an additional validation at the end of the training")
    return obstacles


def validation_interval(plan: Plan[T]) -> str:
    """Return the interval between the validations of a run, as text."""
    num_steps = plan.duration.val_interval
    if num_steps is not None:
        return f"{num_steps:,} steps" if num_steps > 1 else "step"
    fraction = plan.run.trainer.val_check_interval
    return f"{fraction:g} epochs" if fraction < 1 else "epoch"


def open_stage(
    run_folder: RunFolder,
    stage: str,
    plan: Plan[T],
    module: pl.LightningModule,
    data: ImageDataModule,
    settings: FitSettings,
) -> tuple[Path, Path | None]:
    """Return the folder of a stage, and the checkpoint to resume from, if there is one.

    Raises:
        ValueError: The folder cannot be created, none of its checkpoints is intact, or the newest
            one does not fit the run. If the duration is new, no file has been changed then.
    """
    is_new = plan.is_changed or bool(run_folder.new_durations())
    if plan.saved is not None and is_new and is_rank_zero():
        checkpoint = check_resumable(module, data, settings, plan.saved.path)
        if plan.is_changed:
            last = checkpoint if plan.saved.is_finished else None
            reopen_stage(run_folder, stage, last, plan.duration.steps_per_epoch)
    folder = run_folder.open_stage(stage)
    return folder, find_resume_checkpoint(folder)


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
        write_continued(folder, last, steps_per_epoch)
    for name in (RESULT_FILE, "run.json"):
        (folder / name).unlink(missing_ok=True)
    run_folder.write_config(is_opened=True)
    (folder / "checkpoints" / "last.ckpt").unlink(missing_ok=True)
