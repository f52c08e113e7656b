"""What keeps a training from being lost: checkpoints to go on from, and an end in order when a signal comes.

A checkpoint is written between two batches, when all that belongs to the first one is done and logged, validation
included, and nothing of the second. All randomness being stateless, a run that goes on from there is the same, bit for
bit, as one that never stopped.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.nn.utils import get_total_norm

from vaegan.archives import read_content
from vaegan.files import written_whole
from vaegan.interrupts import INBOX, Interrupted
from vaegan.logs import mark
from vaegan.processes import Votes
from vaegan.training import CheckpointConfig

log = logging.getLogger(__name__)
DIVERGED = (
    "{}: the training has diverged. No checkpoint holds it. Lower the learning rate, or leave more single bad steps "
    "out with trainer.skip_bad_steps=10"
)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: It cannot be written; the one that was there is untouched.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's own writer turns one into the other
            reason = getattr(error, "strerror", None) or getattr(error.__context__, "strerror", None) or error
            raise OSError(f"cannot write the checkpoint {path} ({reason}). The ones before it are untouched") from error


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: of the validation with the best metric. It goes with the run folder to another place."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False, save_top_k=1)

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
        if self.best_model_score is None or not torch.equal(score.cpu(), self.best_model_score.cpu()):
            log.warning("the best checkpoint is of before the run was stopped: %s=%s", self.monitor, score.item())
        return float(score)


class NonFiniteStep(ValueError):
    """A loss or a gradient is not a number, or infinite."""


class FiniteSteps(pl.Callback):
    """Ends a training whose loss or gradient is not finite, before a checkpoint of it is written.

    A module names what its next optimizer step follows from in `terms`. On an accelerator, which must not wait, the
    values of many steps are looked at together; in any case before a validation and before a checkpoint.

    Args:
        num_skipped: Bad steps that are left out before the training ends.
    """

    NUM_TOGETHER = 50

    def __init__(self, num_skipped: int) -> None:
        self.allowed, self.num_skipped = num_skipped, 0
        self.steps: list[tuple[int, list[str], Tensor]] = []  # batches done, terms, values; not looked at yet

    def state_dict(self) -> dict[str, Any]:
        return {"num_skipped": self.num_skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_skipped = state_dict["num_skipped"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.votes = Votes()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        terms: dict[str, Tensor] = {name: value.detach().mean() for name, value in pl_module.terms.items()}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # else infinite gradients are part of the method
            terms[f"the gradient of {next(iter(terms))}"] = get_total_norm(
                [parameter.grad for parameter in parameters if parameter.grad is not None]
            )
        self.steps.append((trainer.fit_loop.total_batch_idx, list(terms), torch.stack(list(terms.values()))))
        if self.allowed:
            self.skip(parameters)
        elif pl_module.device.type == "cpu" or len(self.steps) >= self.NUM_TOGETHER:
            self.check()

    def skip(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Leave the step out on all devices if it is bad on one of them, and not too many were."""
        bad = next(self.bad(), None)
        self.steps.clear()
        if self.votes.any(int(bad is not None))[0]:
            what = bad or "the step is bad on another device"
            if self.num_skipped == self.allowed:
                raise NonFiniteStep(DIVERGED.format(what))
            self.num_skipped += 1
            log.warning("step left out (%d of at most %d): %s", self.num_skipped, self.allowed, what)
            for parameter in parameters:
                parameter.grad = None  # Adam leaves those alone, with their moments

    def check(self) -> None:
        """Look at the steps that were not looked at yet.

        Raises:
            NonFiniteStep: One of them is bad; says which, and what of it.
        """
        if what := next(self.bad(), None):
            raise NonFiniteStep(DIVERGED.format(what))
        self.steps.clear()

    def bad(self) -> Iterator[str]:
        """What is not finite in the steps that were not looked at yet."""
        for iteration, names, values in self.steps:
            for name, value in zip(names, values.tolist(), strict=True):
                if not math.isfinite(value):
                    yield f"{name} is {value} at iteration {iteration}"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.check()


class Recovery(pl.Callback):
    """Writes checkpoints to go on from: every so often, when a signal asks the run to end, and when a training ends.

    It must be the first callback: it acts before anything is done for a batch.

    Args:
        folder: Of the stage. Checkpoints go to folder/checkpoints: BATCHES.ckpt, in the end last.ckpt.
        config: How often, and how many are kept.
        batch_size: Images of one step.
        finite_steps: Looks at the last steps before a checkpoint is written.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, batch_size: int, finite_steps: FiniteSteps) -> None:
        self.folder, self.config, self.batch_size, self.finite_steps = folder, config, batch_size, finite_steps
        self.is_finished = False  # whether the training has ended
        self.num_saved = -1  # batches that are in the newest checkpoint

    def state_dict(self) -> dict[str, Any]:
        return {"is_finished": self.is_finished, "logs": mark(self.folder)}

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
        signum, is_due = self.votes.any(INBOX.signum, int(self.is_due(num_done)))
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


class Interruptible(pl.Callback):
    """Outside of a training there is nothing to finish and to save: a signal ends the run at the next batch."""

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.state.fn != "fit":
            self.heed()

    def on_test_batch_start(self, *args: Any) -> None:
        self.heed()

    def heed(self) -> None:
        """End if a signal came."""
        if INBOX.signum:
            raise Interrupted(INBOX.signum, "ended in order; nothing was under way that is not repeated")
