"""Options that make training steps faster, and that validation and test do not use."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch

from vaegan.training.compilation import CompiledNetworks
from vaegan.training.trainer_config import TrainerConfig


class StepOptions(pl.Callback):
    """Apply `trainer.matmul_precision` and `trainer.compile` in training steps.

    The module's attribute `trained_networks` lists the networks to compile.
    """

    def __init__(self, config: TrainerConfig) -> None:
        self.matmul_precision = config.matmul_precision
        self.is_compiled = config.compile
        self.compiled: CompiledNetworks | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.is_compiled:
            self.compiled = CompiledNetworks(pl_module.trained_networks)

    def on_train_batch_start(self, *args: Any) -> None:
        torch.set_float32_matmul_precision(self.matmul_precision)
        if self.compiled is not None:
            self.compiled.start()

    def on_train_batch_end(self, *args: Any) -> None:
        torch.set_float32_matmul_precision("highest")
        if self.compiled is not None:
            self.compiled.stop()

    def on_exception(self, *args: Any) -> None:
        self.on_train_batch_end()
