"""Checkpoints of a stage to resume from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.callbacks import EarlyStopping

from vaegan.runtime.atomic_files import remove_partial
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.paths import display_path
from vaegan.runtime.safe_load import load_archive
from vaegan.training.continuation import to_resume_checkpoint
from vaegan.training.loggers import truncate_logs
from vaegan.training.resume_checkpoints import (
    AtomicCheckpointIO,
    ResumeCheckpoints,
    periodic_checkpoints,
)

log = logging.getLogger(__name__)


class TrainingState(NamedTuple):
    """State of the training of a stage in its newest intact checkpoint."""

    path: Path
    run: dict[str, Any]  # plain run with all defaults filled in
    num_steps: int  # completed training steps
    is_finished: bool  # True if training had ended
    stopped_early: bool  # True if EarlyStopping had run out of patience


def has_checkpoints(folder: Path) -> bool:
    """True if a stage has a checkpoint to resume from."""
    return bool(resume_candidates(folder))


def resume_candidates(folder: Path) -> list[Path]:
    """Return the checkpoints of a stage to resume from, newest first."""
    last = folder / "checkpoints" / "last.ckpt"
    return [*([last] if last.exists() else []), *periodic_checkpoints(folder)]


def load_training_state(folder: Path) -> TrainingState | None:
    """Load the state of a stage's training; None if the stage has no intact checkpoint.

    Unlike `find_resume_checkpoint`, it changes no file.
    """
    saved = None
    if is_rank_zero():
        for path in resume_candidates(folder):
            with suppress(ValueError):
                saved = read_training_state(load_archive(path), path)
                break
    return broadcast(saved)


def read_training_state(checkpoint: Mapping[str, Any], path: Path) -> TrainingState:
    """Return the state of a stage's training from the content and the path of a checkpoint."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    callbacks = checkpoint["callbacks"]
    stopping = [callbacks[key] for key in callbacks if key.startswith(EarlyStopping.__name__)]
    return TrainingState(
        path,
        run=checkpoint["vaegan"]["run"],
        num_steps=progress["total"]["completed"],
        is_finished=callbacks[ResumeCheckpoints.__name__]["is_finished"],
        stopped_early=any(state["wait_count"] >= state["patience"] for state in stopping),
    )


def write_resume_checkpoint(folder: Path, last: Mapping[str, Any], steps_per_epoch: int) -> None:
    """Write the last checkpoint of a finished stage as one to resume from.

    Raises:
        OSError: Writing failed.
    """
    num_steps = read_training_state(last, folder).num_steps
    content = to_resume_checkpoint(last, steps_per_epoch)
    AtomicCheckpointIO().save_checkpoint(content, folder / "checkpoints" / f"{num_steps:08d}.ckpt")


def find_resume_checkpoint(folder: Path) -> Path | None:
    """Find the newest intact checkpoint of a stage, and truncate the logs to its position.

    Returns:
        Path of the checkpoint; None if the stage has no checkpoints.

    Raises:
        ValueError: There are checkpoints, but none of them is intact.
    """
    found = None
    if is_rank_zero():
        remove_partial(folder / "checkpoints")
        candidates = resume_candidates(folder)
        broken = []
        for path in candidates:
            try:
                log_position = load_archive(path)["callbacks"][ResumeCheckpoints.__name__]["logs"]
            except ValueError as error:
                log.warning("%s; trying the previous checkpoint", error)
                broken.append(path)
                continue
            found = path
            break
        if candidates and found is None:
            raise ValueError(
                f"no checkpoint in {folder / 'checkpoints'} is intact; start a new run with "
                "hydra.run.dir set to another folder"
            )
        if found:
            for path in broken:
                path.rename(path.with_suffix(".broken"))  # not counted in checkpoint.keep
            truncate_logs(folder, log_position)
            log.info("resuming from %s", display_path(found))
    return broadcast(found)
