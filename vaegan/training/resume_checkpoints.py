"""What keeps a training from being lost: checkpoints to go on from, and an end in order when a signal comes.

A checkpoint is written between two batches, when all that belongs to the first one is done and logged, validation
included, and nothing of the second. All randomness being stateless, a run that goes on from there is the same, bit for
bit, as one that never stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vaegan.runtime.atomic_files import atomic_write
from vaegan.runtime.collectives import Votes
from vaegan.runtime.safe_load import read_content
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted
from vaegan.training.loggers import log_position
from vaegan.training.non_finite_guard import NonFiniteGuard
from vaegan.training.trainer_config import CheckpointConfig

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            OSError: It cannot be written; the one that was there is untouched.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's own writer turns one into the other
            reason = (
                getattr(error, "strerror", None)
                or getattr(error.__context__, "strerror", None)
                or error
            )
            raise OSError(
                f"cannot write the checkpoint {path} ({reason}). The ones before it are untouched"
            ) from error


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: of the validation with the best metric. It goes with the run folder to another place."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode=mode, enable_version_counter=False, save_top_k=1
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path, score = str(Path(str(self.dirpath)) / "best.ckpt"), state_dict["best_model_score"]
        if score is not None:
            moved = {"dirpath": self.dirpath, "best_model_path": path, "kth_best_model_path": path}
            state_dict = state_dict | moved | {"best_k_models": {path: score}}
        super().load_state_dict(state_dict)

    def kept_score(self) -> float:
        """Score of the file: where a run rounds differently after a stop, it may be of a validation before that."""
        content = read_content(Path(str(self.dirpath)) / "best.ckpt")
        score: Tensor = content["callbacks"][self.state_key]["best_model_score"]
        if self.best_model_score is None or not torch.equal(
            score.cpu(), self.best_model_score.cpu()
        ):
            log.warning(
                "the best checkpoint is of before the run was stopped: %s=%s",
                self.monitor,
                score.item(),
            )
        return float(score)


class ResumeCheckpoints(pl.Callback):
    """Writes checkpoints to go on from: every so often, when a signal asks the run to end, and when a training ends.

    It must be the first callback: it acts before anything is done for a batch.

    Args:
        folder: Of the stage. Checkpoints go to folder/checkpoints: BATCHES.ckpt, in the end last.ckpt.
        config: How often, and how many are kept.
        batch_size: Images of one step.
        finite_steps: Looks at the last steps before a checkpoint is written.
    """

    def __init__(
        self, folder: Path, config: CheckpointConfig, batch_size: int, finite_steps: NonFiniteGuard
    ) -> None:
        self.folder, self.config, self.batch_size, self.finite_steps = (
            folder,
            config,
            batch_size,
            finite_steps,
        )
        self.is_finished = False  # whether the training has ended
        self.num_saved = -1  # batches that are in the newest checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"is_finished": self.is_finished, "logs": log_position(self.folder)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.is_finished = state_dict["is_finished"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.votes, self.saved_at = Votes(), time.monotonic()
        trainer.should_stop = self.is_finished
        loop = trainer.fit_loop.epoch_loop
        if loop.restarting:
            # The batch that Lightning had fetched when the checkpoint was written counts as not fetched,
            # and the last one before it as logged.
            loop.batch_progress.total.ready = self.num_saved = loop.batch_progress.total.completed
            loop.batch_progress.is_last_batch = False
            loop._batches_that_stepped -= 1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        num_done = trainer.fit_loop.epoch_loop.batch_progress.total.completed
        signum, is_due = self.votes.any(SIGNAL_STATE.signum, int(self.is_due(num_done)))
        if signum or is_due:
            self.save(trainer, num_done)
        if signum:
            raise Interrupted(signum, f"ended in order after batch {num_done}")

    def is_due(self, num_done: int) -> bool:
        """Whether it is time for a checkpoint."""
        minutes, images = self.config.every_n_minutes, self.config.every_n_images
        if num_done == max(0, self.num_saved):
            return False
        if minutes is not None and time.monotonic() - self.saved_at >= 60 * minutes:
            return True
        return images is not None and num_done % max(1, images // self.batch_size) == 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.is_finished:
            self.is_finished = True
            self.save(trainer, trainer.fit_loop.epoch_loop.batch_progress.total.completed)

    def save(self, trainer: pl.Trainer, num_done: int) -> None:
        """Write the newest checkpoint, and then remove the oldest."""
        if num_done == self.num_saved and not self.is_finished:
            return
        self.finite_steps.check()
        for logger in trainer.loggers:
            logger.save()
        name = "last" if self.is_finished else f"{num_done:08d}"
        trainer.save_checkpoint(self.folder / "checkpoints" / f"{name}.ckpt", weights_only=False)
        self.num_saved, self.saved_at = num_done, time.monotonic()
        self.keep_newest()

    @rank_zero_only
    def keep_newest(self) -> None:
        """Remove all checkpoints to go on from but the newest few."""
        for path in numbered(self.folder)[self.config.keep :]:
            path.unlink()


def numbered(folder: Path) -> Sequence[Path]:
    """A stage's checkpoints to go on from, the newest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*.ckpt"), reverse=True)
