"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import logging
from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted

log = logging.getLogger(__name__)


class StopOnSignal(pl.Callback):
    """Outside of a training there is nothing to finish and to save: a signal ends the run at the next batch."""

    def on_validation_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.state.fn != "fit":
            self.heed()

    def on_test_batch_start(self, *args: Any) -> None:
        self.heed()

    def heed(self) -> None:
        """End if a signal came."""
        if SIGNAL_STATE.signum:
            raise Interrupted(
                SIGNAL_STATE.signum, "ended in order; nothing was under way that is not repeated"
            )
