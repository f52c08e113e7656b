"""Gradients, and which training steps are logged."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm


def is_logged(trainer: pl.Trainer) -> bool:
    """True if Lightning writes what the current training step logs; else skip computing it."""
    log_every_n_steps = int(getattr(trainer, "log_every_n_steps"))  # noqa: B009
    return (trainer.fit_loop.total_batch_idx + 1) % log_every_n_steps == 0


def gradient_scale(trainer: pl.Trainer) -> float:
    """Return the factor of the gradients before an optimizer step: not 1 in 16-mixed precision."""
    scaler: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def gradient_norm(parameters: Iterable[nn.Parameter], trainer: pl.Trainer) -> Tensor:
    """Compute the Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients) / gradient_scale(trainer)


def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, trainer: pl.Trainer
) -> None:
    """Scale all gradients together so that their norm is at most `max_norm`."""
    clip_grad_norm_(parameters, max_norm * gradient_scale(trainer))


def drop_gradients(modules: Iterable[nn.Module]) -> None:
    """Set gradients to None: Adam then leaves the parameters and their moments unchanged."""
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
