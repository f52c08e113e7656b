"""What both LightningModules need around a step."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what the current training step logs; to compute it at other steps would be a waste."""
    return (trainer.fit_loop.total_batch_idx + 1) % int(getattr(trainer, "log_every_n_steps")) == 0  # noqa: B009


def gradient_scale(trainer: pl.Trainer) -> float:
    """What gradients are multiplied with before an optimizer's step: other than 1 in 16-mixed precision only."""
    scaler: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
    return 1.0 if scaler is None else float(scaler.get_scale())


def gradient_norm(parameters: Iterable[nn.Parameter], trainer: pl.Trainer) -> Tensor:
    """Euclidean norm of all gradients together."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients) / gradient_scale(trainer)


def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, trainer: pl.Trainer
) -> None:
    """Shorten the gradient, all parameters together, to `max_norm` if it is longer."""
    clip_grad_norm_(parameters, max_norm * gradient_scale(trainer))


def drop_gradients(modules: Iterable[nn.Module]) -> None:
    """Forget the gradients of all parameters: Adam then leaves these alone, with their moments."""
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
