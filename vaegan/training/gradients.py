"""Gradient norm, clipping and steps of manual optimization; a check for logged steps."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vaegan.training.strategies import average_gradients


def is_logged(trainer: pl.Trainer) -> bool:
    """True if Lightning writes the values logged in this step; else they need not be computed."""
    log_every_n_steps = int(getattr(trainer, "log_every_n_steps"))  # noqa: B009
    return (trainer.fit_loop.total_batch_idx + 1) % log_every_n_steps == 0


def gradient_scale(trainer: pl.Trainer) -> Tensor | float:
    """Return the loss scale contained in the gradients: 1, except in 16-mixed precision.

    The scale stays on the device: `GradScaler.get_scale` waits for all queued GPU work.
    """
    scaler: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None:
        return 1.0
    return scaler.scale(torch.ones((), device=trainer.strategy.root_device))


def gradient_norm(parameters: Iterable[nn.Parameter], trainer: pl.Trainer) -> Tensor:
    """Return the Euclidean norm over all gradients, without the loss scale."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return get_total_norm(gradients) / gradient_scale(trainer)


def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float, trainer: pl.Trainer
) -> None:
    """Scale all gradients by one factor so that their joint norm is at most `max_norm`."""
    parameters = list(parameters)
    clip_grads_with_norm_(parameters, max_norm, gradient_norm(parameters, trainer))


def optimizer_step(
    trainer: pl.Trainer,
    optimizer: LightningOptimizer,
    network: nn.Module,
    max_norm: float | None,
    counts_batch: bool,
) -> Tensor | None:
    """Update the weights of a network in manual optimization.

    Args:
        trainer: Lightning's Trainer.
        optimizer: Optimizer of the network.
        network: The network.
        max_norm: Largest norm of its gradient; None: no limit.
        counts_batch: True: Lightning adds 1 to `global_step`, which only one step per batch should.

    Returns:
        The gradient norm before clipping if this step is logged, else None.
    """
    average_gradients(network.parameters(), trainer)
    norm = gradient_norm(network.parameters(), trainer) if is_logged(trainer) else None
    if max_norm is not None:
        clip_gradients(network.parameters(), max_norm, trainer)
    if counts_batch:
        optimizer.step()
    else:
        trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
    return norm


def drop_gradients(modules: Iterable[nn.Module]) -> None:
    """Set gradients to None, so that Adam changes neither the parameters nor their moments."""
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
