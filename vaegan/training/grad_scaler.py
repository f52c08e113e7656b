"""Gradient scaling of precision=16-mixed."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision


class GradScaler(torch.amp.GradScaler):
    """Gradient scaler that accepts steps without gradients and then keeps its scale.

    Torch's scaler raises "No inf checks were recorded" in such steps: after a skipped step
    (`NonFiniteGuard`), and while all layers are frozen.
    """

    has_gradients = True

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Update the weights unless a gradient is not finite."""
        groups = optimizer.param_groups
        self.has_gradients = any(p.grad is not None for group in groups for p in group["params"])
        if self.has_gradients:
            return super().step(optimizer, *args, **kwargs)
        return optimizer.step(*args, **kwargs)  # changes nothing

    def update(self, new_scale: Any = None) -> None:
        """Adapt the scale to the last step."""
        if self.has_gradients:
            super().update(new_scale)


def accept_missing_gradients(trainer: pl.Trainer) -> None:
    """Replace the trainer's gradient scaler, if it has one."""
    precision = trainer.precision_plugin
    if isinstance(precision, MixedPrecision) and precision.scaler is not None:
        precision.scaler = GradScaler(precision.device)
