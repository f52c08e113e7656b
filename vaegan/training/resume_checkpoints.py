"""Checkpoints to resume training from, and the checkpoint with the best metric.

A resume checkpoint is written between two batches: the first batch is completed and logged,
including its validation, and the second has not started. Because all randomness is stateless, a
resumed run on the CPU equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vaegan.runtime.atomic_files import atomic_write
from vaegan.runtime.collectives import FlagReducer
from vaegan.runtime.safe_load import load_archive
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted
from vaegan.training.loggers import log_position
from vaegan.training.non_finite_guard import NonFiniteGuard
from vaegan.training.trainer_config import CheckpointConfig

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: Writing failed. An earlier checkpoint at `path` is left unchanged.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch's writer raises a RuntimeError while it handles an OSError.
            cause = error if isinstance(error, OSError) else error.__context__
            reason = getattr(cause, "strerror", None) or error
            raise OSError(f"cannot write the checkpoint {path} ({reason})") from error


class BestCheckpoint(ModelCheckpoint):
    """Save the weights of the best validation as `best.ckpt`; the run folder may be moved."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode=mode, enable_version_counter=False, save_top_k=1
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = str(Path(str(self.dirpath)) / "best.ckpt")
        score = state_dict["best_model_score"]
        if score is not None:
            paths = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
            state_dict = state_dict | paths | {"best_k_models": {path: score}}
        super().load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.check_monitor(checkpoint)

    def check_monitor(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that the run that wrote a checkpoint selected the best one by the same metric.

        Raises:
            ValueError: It used another metric.
        """
        keys = [key for key in checkpoint["callbacks"] if key.startswith(type(self).__name__)]
        if keys and self.state_key not in keys:
            raise ValueError(
                f"the run cannot be resumed: {self.monitor} now selects the best checkpoint, but "
                "the version of vaegan that started the run used another metric. Start a new "
                "run, or install that version; best.ckpt is unchanged and can be used"
            )

    def saved_score(self) -> float:
        """Return the score stored in best.ckpt.

        If a resumed run rounds differently, it can differ from the best score in memory.
        """
        content = load_archive(Path(str(self.dirpath)) / "best.ckpt")
        score: Tensor = content["callbacks"][self.state_key]["best_model_score"]
        best = self.best_model_score
        if best is None or not torch.equal(score.cpu(), best.cpu()):
            message = "the best checkpoint was saved before the run was interrupted: %s=%s"
            log.warning(message, self.monitor, score.item())
        return float(score)


class ResumeCheckpoints(pl.Callback):
    """Write resume checkpoints: periodically, on a termination signal, and at the end of training.

    This must be the first callback, because it runs before any other callback acts on a batch.

    Args:
        folder: Folder of the stage. Checkpoints are written to folder/checkpoints/BATCHES.ckpt, and
            to folder/checkpoints/last.ckpt at the end of training.
        config: Interval between checkpoints and the number to keep.
        batch_size: Training images per batch.
        guard: Checks the last steps before a checkpoint is written.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, batch_size: int, guard: NonFiniteGuard
    ) -> None:
        self.folder = folder
        self.config = config
        self.batch_size = batch_size
        self.guard = guard
        self.is_finished = False  # True after the end of training
        self.num_saved = -1  # completed batches in the newest checkpoint; -1: no checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"is_finished": self.is_finished, "logs": log_position(self.folder)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.is_finished = state_dict["is_finished"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.flag_reducer = FlagReducer()
        self.saved_at = time.monotonic()
        trainer.should_stop = self.is_finished
        loop = trainer.fit_loop.epoch_loop
        if loop.restarting:
            # When the checkpoint was written, Lightning had already fetched the next batch and had
            # not yet logged the previous one. Undo both.
            self.num_saved = loop.batch_progress.total.completed
            loop.batch_progress.total.ready = self.num_saved
            loop.batch_progress.is_last_batch = False
            loop._batches_that_stepped -= 1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        num_done = self.num_batches_done(trainer)
        flags = [SIGNAL_STATE.signum, int(self.is_due(num_done))]
        signum, is_due = self.flag_reducer.all_reduce_max(flags)
        if signum or is_due:
            self.save(trainer, num_done)
        if signum:
            raise Interrupted(signum, f"stopped after batch {num_done}")

    def num_batches_done(self, trainer: pl.Trainer) -> int:
        """Return the number of completed training batches."""
        return trainer.fit_loop.epoch_loop.batch_progress.total.completed

    def is_due(self, num_done: int) -> bool:
        """True if it is time for a periodic checkpoint."""
        if num_done == max(0, self.num_saved):
            return False
        minutes = self.config.every_n_minutes
        if minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes:
            return True
        images = self.config.every_n_images
        return images is not None and num_done % max(1, images // self.batch_size) == 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.is_finished:
            self.is_finished = True
            self.save(trainer, self.num_batches_done(trainer))

    def save(self, trainer: pl.Trainer, num_done: int) -> None:
        """Write a checkpoint, then remove the oldest ones."""
        if num_done == self.num_saved and not self.is_finished:
            return
        self.guard.check()
        for logger in trainer.loggers:
            logger.save()
        name = "last" if self.is_finished else f"{num_done:08d}"
        trainer.save_checkpoint(self.folder / "checkpoints" / f"{name}.ckpt", weights_only=False)
        self.num_saved = num_done
        self.saved_at = time.monotonic()
        self.remove_old()

    @rank_zero_only
    def remove_old(self) -> None:
        """Remove all periodic checkpoints except the newest `config.keep`."""
        for path in periodic_checkpoints(self.folder)[self.config.keep :]:
            path.unlink()


def periodic_checkpoints(folder: Path) -> Sequence[Path]:
    """Return the periodic checkpoints of a stage, newest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*.ckpt"), reverse=True)
