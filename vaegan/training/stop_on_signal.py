"""Stop validation and test loops on termination signals."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, raise_if_late


class StopOnSignal(pl.Callback):
    """Stop at the next batch of a validation or test loop.

    A validation during training may finish if it is short, because `ResumeCheckpoints` then saves a
    checkpoint. A long one is stopped, so that the run ends before a scheduler kills it.
    """

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.state.fn != "fit":
            self.raise_if_interrupted()
        else:
            raise_if_late()

    def on_test_batch_start(self, *args: Any) -> None:
        self.raise_if_interrupted()

    def raise_if_interrupted(self) -> None:
        """Raise `Interrupted` if a termination signal was received."""
        if SIGNAL_STATE.signum:
            raise Interrupted(SIGNAL_STATE.signum, "stopped; no work is lost")
