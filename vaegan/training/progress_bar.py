"""Progress bar and progress lines of a training run."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from rich.console import Console

from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.progress_lines import ProgressLines, format_seconds
from vaegan.training.gradients import is_logged

SECONDS_BETWEEN_LINES = 300.0  # longest time between two lines during training
FIRST_LINE_BATCHES = 30  # training batches before the first line, which estimates the time left

log = logging.getLogger(__name__)


def is_bar_shown(enable_progress_bar: bool) -> bool:
    """True if a progress bar is enabled and standard output is a terminal that can show it."""
    return enable_progress_bar and Console().is_interactive


class ProgressLog(pl.Callback):
    """Logs a line with all metrics after each validation, and some lines between them.

    The first line comes after `FIRST_LINE_BATCHES` batches, the next ones every few minutes.

    Args:
        stage: Name of the stage.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.start = self.last_line = time.monotonic()
        self.first_batch: int | None = None  # batches done when this process started to train

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = self.last_line = time.monotonic()
        self.first_batch = self.num_done(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        is_first = self.num_new(trainer) == FIRST_LINE_BATCHES
        if is_first or time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.write_line(trainer, "train/")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.write_line(trainer, "val/")

    def num_done(self, trainer: pl.Trainer) -> int:
        """Return the number of training batches that are done."""
        return trainer.fit_loop.epoch_loop.batch_progress.total.completed

    def num_new(self, trainer: pl.Trainer) -> int:
        """Return the number of training batches that this process has done."""
        return self.num_done(trainer) - (self.first_batch or 0)

    def write_line(self, trainer: pl.Trainer, prefix: str) -> None:
        """Log the epoch, the batches, the time and the metrics whose tags have a prefix."""
        self.last_line = time.monotonic()
        if not is_rank_zero():
            return
        metrics = trainer.callback_metrics.items()
        values = [f"{tag}={float(value):.6g}" for tag, value in metrics if tag.startswith(prefix)]
        parts = [self.describe_position(trainer), ", ".join(values)]
        log.info("%s: %s", self.stage, "; ".join(filter(None, parts)))

    def describe_position(self, trainer: pl.Trainer) -> str:
        """Return the epoch, the batches and the time, or that training has not begun."""
        num_done = self.num_done(trainer)
        if self.first_batch is None or not num_done:
            return "before training"
        total = int(trainer.estimated_stepping_batches)
        elapsed = time.monotonic() - self.start
        num_new = max(1, self.num_new(trainer))
        left = format_seconds(elapsed * max(0, total - num_done) / num_new)
        epoch = f"epoch {trainer.current_epoch + 1}"
        if trainer.max_epochs != -1:  # -1: the duration is a number of images
            epoch += f" of {trainer.max_epochs}"
        batches = f"batch {num_done:,} of {total:,}"
        return f"{epoch}, {batches}, {format_seconds(elapsed)}, about {left} left"


class TestProgressLog(pl.Callback):
    """Logs the progress of a test loop."""

    __test__ = False  # not a test of pytest

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.lines = ProgressLines("evaluation", int(sum(trainer.num_test_batches)), "batches")

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.lines.update(batch_idx + 1)


class LoggedMetricsBar(RichProgressBar):
    """Rich progress bar that shows the module's `progress_bar_tags`, read in logged steps only.

    With `self.log(..., prog_bar=True)`, Lightning reads the values after every batch, and on a GPU
    the host waits for all queued work each time.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=10)
        self.last_metrics: dict[str, Any] = {}

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        if not trainer.training or is_logged(trainer):
            metrics = trainer.callback_metrics
            tags: Any = pl_module.progress_bar_tags
            self.last_metrics = {tag: float(metrics[tag]) for tag in tags if tag in metrics}
        return dict(self.last_metrics)
