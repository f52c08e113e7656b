"""Resume a run with another duration than it was started with, to train a finished run further.

This is possible if the result equals that of one uninterrupted run of the new duration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from vaegan.config import to_plain
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.safe_load import load_archive
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.folder_access import DURATION_KEYS, advise_init
from vaegan.stages.run_folder import RESULT_FILE, RunFolder
from vaegan.stages.stage_checkpoints import SavedTraining, find_resume_checkpoint, reopen_last
from vaegan.stages.training_runs import GANRun, VAERun
from vaegan.training.duration import Duration
from vaegan.training.resume_checkpoints import ResumeCheckpoints

T = TypeVar("T", VAERun, GANRun)
RESTORE = "Restore the duration, or set hydra.run.dir to a new folder"


class Plan(NamedTuple, Generic[T]):
    """Settings of a stage, with all defaults filled in, and the resulting duration."""

    run: T
    duration: Duration
    is_changed: bool = False  # True if the stage has begun with another duration


def make_plan(
    run_folder: RunFolder,
    stage: str,
    saved: SavedTraining | None,
    run: T,
    resolve: Callable[[T], Plan[T]],
) -> Plan[T]:
    """Return the plan of a stage; if it has begun, check that it can continue with this plan.

    Args:
        run_folder: Run folder.
        stage: Stage of the run: vae or gan.
        saved: State of the stage's training; None: it has no intact checkpoint.
        run: Settings of the stage.
        resolve: Returns the plan of given settings.

    Raises:
        ValueError: The result would differ from that of one run of this duration.
    """
    folder = run_folder.path / stage
    plan = resolve(run)
    if saved is None:
        if (folder / RESULT_FILE).exists():
            file = "its checkpoints/last.ckpt is missing or damaged"
            raise ValueError(f"{folder} cannot be trained further: {file}. {RESTORE}")
        return plan
    values = {key: saved.run["trainer"].get(key) for key in DURATION_KEYS}
    earlier = replace(run.trainer, **values)
    is_past = saved.num_steps >= plan.duration.num_steps
    if earlier == run.trainer and saved.is_finished >= is_past:
        return plan
    if is_past:
        num_images = plan.duration.images_after(saved.num_steps)
        raise ValueError(
            f"{folder} has already been trained for {num_images:,} images, so it cannot be resumed "
            f"with a duration of {plan.duration.num_images:,}. {RESTORE}"
        )
    check_obstacles(run_folder, stage, saved, resolve(replace(run, trainer=earlier)), plan)
    return plan._replace(is_changed=True)


def check_obstacles(
    run_folder: RunFolder, stage: str, saved: SavedTraining, before: Plan[T], after: Plan[T]
) -> None:
    """Check that a run of another duration would have begun in the same way.

    Raises:
        ValueError: It would not.
    """
    folder = run_folder.path / stage
    obstacles = find_obstacles(saved, before, after)
    if broadcast(is_rank_zero() and best_is_last(folder)):
        obstacles.append(
            "best.ckpt contains the last weights, which a longer run would not have scored"
        )
    if obstacles:
        raise ValueError(
            f"{folder} was started with a duration of {before.duration.num_images:,} images. With "
            f"{after.duration.num_images:,} images, the result would differ from that of one run "
            f"of this duration: {'; '.join(obstacles)}. {RESTORE}"
            f"{advise_init(stage, run_folder.path)}"
        )


def find_obstacles(saved: SavedTraining, before: Plan[T], after: Plan[T]) -> list[str]:
    """Return the reasons why a run of the new duration would have begun differently."""
    settings = after.run.settings_by_duration()
    obstacles = [f"the effect of {', '.join(settings)} depends on it"] if settings else []
    ignored = [*IGNORED_KEYS, *LOCATION_KEYS, *(f"trainer.{key}" for key in DURATION_KEYS)]
    changes = diff_configs(to_plain(before.run), to_plain(after.run), ignored)
    obstacles += [f"the default of {change.partition('=')[0]} would change" for change in changes]
    intervals = [validation_interval(plan) for plan in (before, after)]
    if intervals[0] != intervals[1]:
        obstacles.append(f"validations would be {intervals[1]} apart (were {intervals[0]})")
    if saved.is_finished and saved.num_steps < before.duration.num_steps:
        num_images = before.duration.images_after(saved.num_steps)
        obstacles.append(f"training ended early, after {num_images:,} images")
    return obstacles


def validation_interval(plan: Plan[T]) -> str:
    """Return the interval between the validations of a run, as text."""
    if plan.duration.val_interval is None:
        return f"{plan.run.trainer.val_check_interval:g} epochs"
    return f"{plan.duration.val_interval:,} steps"


def best_is_last(folder: Path) -> bool:
    """True if the last weights of a stage were the best in a validation after its training."""
    content = load_archive(folder / "checkpoints" / "best.ckpt")
    return bool(content["callbacks"][ResumeCheckpoints.__name__]["is_finished"])


def open_stage(run_folder: RunFolder, stage: str, plan: Plan[T]) -> tuple[Path, Path | None]:
    """Return the folder of a stage, and the checkpoint to resume from, if there is one.

    Raises:
        ValueError: The folder cannot be created, or none of its checkpoints is intact.
    """
    if plan.is_changed and is_rank_zero():
        reopen_stage(run_folder, stage, plan.duration.steps_per_epoch)
    folder = run_folder.open_stage(stage)
    return folder, find_resume_checkpoint(folder)


def reopen_stage(run_folder: RunFolder, stage: str, steps_per_epoch: int) -> None:
    """Prepare a stage for resuming it with the duration of the run.

    If this is interrupted, the run can still be resumed with the earlier or the new duration.
    """
    folder = run_folder.path / stage
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        reopen_last(folder, steps_per_epoch)
    for name in (RESULT_FILE, "run.json"):
        (folder / name).unlink(missing_ok=True)
    run_folder.write_config(opened=stage)
    last.unlink(missing_ok=True)
