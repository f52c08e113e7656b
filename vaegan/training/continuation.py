"""Continue a finished training run: turn its last checkpoint into one to resume from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

# State of Lightning's training loop that counts from the start of the epoch
PROGRESS_IN_EPOCH = (
    "batch_progress",
    "scheduler_progress",
    "automatic_optimization.optim_progress",
)


def to_resume_checkpoint(checkpoint: Mapping[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """Return the last checkpoint of a finished run as a longer run would have written it.

    When training ends, Lightning marks the current epoch as completed, even if batches remain. A
    longer run would have been between two batches instead, of the same or of consecutive epochs.

    Args:
        checkpoint: Content of last.ckpt; it is not modified.
        steps_per_epoch: Training steps per epoch.
    """
    content = dict(checkpoint)
    content["loops"] = copy.deepcopy(checkpoint["loops"])
    loops = content["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    num_done = batches["total"]["completed"]
    num_epochs, in_epoch = divmod(num_done, steps_per_epoch)
    for progress in (epochs["total"], epochs["current"]):
        progress |= {"ready": num_epochs + 1, "started": num_epochs + 1}
        progress |= {"processed": num_epochs, "completed": num_epochs}
    if in_epoch == 0:
        for name in PROGRESS_IN_EPOCH:
            reset_current(loops[f"epoch_loop.{name}"])
        reset(loops["epoch_loop.val_loop.batch_progress"]["total"])
    batches["current"]["ready"] = in_epoch + 1
    batches["total"]["ready"] = num_done + 1
    batches["is_last_batch"] = False
    content["epoch"] = num_epochs
    position = {"epoch": num_epochs, "batches_done": in_epoch}
    content["ImageDataModule"] = checkpoint["ImageDataModule"] | position
    callbacks = dict(checkpoint["callbacks"])
    callbacks["ResumeCheckpoints"] = callbacks["ResumeCheckpoints"] | {"is_finished": False}
    return content | {"callbacks": callbacks}


def reset_current(state: Any) -> None:
    """Set all counts of the current epoch in the state of a loop to 0, in place."""
    if isinstance(state, dict):
        for key, value in state.items():
            if key == "current":
                reset(value)
            else:
                reset_current(value)


def reset(counts: dict[str, int]) -> None:
    """Set all counts to 0, in place."""
    counts |= dict.fromkeys(counts, 0)
