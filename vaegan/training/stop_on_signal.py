"""Stop validation and test loops on termination signals."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted

SECONDS_TO_VALIDATE = 10.0  # time that a validation gets to finish after a signal


class StopOnSignal(pl.Callback):
    """Stop at the next batch of a validation or test loop.

    A validation during training may finish if it is short, because `ResumeCheckpoints` then saves a
    checkpoint. A long one is stopped, so that the run ends before a scheduler kills it.
    """

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.state.fn != "fit":
            self.raise_if_interrupted()
        elif time.monotonic() - SIGNAL_STATE.received_at > SECONDS_TO_VALIDATE:
            message = "stopped during a validation; the newest checkpoint is older"
            raise Interrupted(SIGNAL_STATE.signum, message)

    def on_test_batch_start(self, *args: Any) -> None:
        self.raise_if_interrupted()

    def raise_if_interrupted(self) -> None:
        """Raise `Interrupted` if a termination signal was received."""
        if SIGNAL_STATE.signum:
            raise Interrupted(SIGNAL_STATE.signum, "stopped; no work is lost")
