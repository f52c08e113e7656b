"""Stop validation and test loops on termination signals."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted


class StopOnSignal(pl.Callback):
    """Stop at the next batch of a validation or test loop outside training.

    No checkpoint is needed there. `ResumeCheckpoints` handles signals during training.
    """

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.state.fn != "fit":
            self.raise_if_interrupted()

    def on_test_batch_start(self, *args: Any) -> None:
        self.raise_if_interrupted()

    def raise_if_interrupted(self) -> None:
        """Raise `Interrupted` if a termination signal was received."""
        if SIGNAL_STATE.signum:
            raise Interrupted(SIGNAL_STATE.signum, "stopped; no work is lost")
