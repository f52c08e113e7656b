"""Options that make training steps faster, and that validation and test do not use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning.pytorch as pl
import torch

from vaegan.training.compilation import CompiledNetworks
from vaegan.training.devices import is_nvidia
from vaegan.training.step_graphs import StepGraphs
from vaegan.training.trainer_config import TrainerConfig


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products in the context: highest, high or medium."""
    previous = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


class StepOptions(pl.Callback):
    """Apply `trainer.matmul_precision`, `compile` and `cuda_graphs` in training steps.

    The module's attribute `trained_networks` lists the networks to compile. Its attribute
    `step_graphs` is set if training steps are replayed as CUDA graphs.
    """

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config
        self.networks: CompiledNetworks | None = None
        self.active = ExitStack()

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.config.compile:
            self.networks = CompiledNetworks(pl_module.trained_networks)
        if self.config.uses_cuda_graphs(is_nvidia(pl_module.device)):
            pl_module.step_graphs = StepGraphs(
                pl_module.device, records_operations=not self.config.compile
            )

    def on_train_batch_start(self, *args: Any) -> None:
        self.active.enter_context(matmul_precision(self.config.matmul_precision))
        if self.networks is not None:
            self.active.enter_context(self.networks.compiled())

    def on_train_batch_end(self, *args: Any) -> None:
        self.active.close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if pl_module.step_graphs is not None:  # release their memory
            pl_module.step_graphs = None
            pl_module.terms = {}
            pl_module.zero_grad()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        pl_module.step_graphs = None
        self.active.close()
