"""Progress bar of a training run."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar

from vaegan.training.gradients import is_logged


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
