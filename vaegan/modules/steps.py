"""What both LightningModules need around a step."""

from __future__ import annotations

from collections.abc import Iterable

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def is_logged(trainer: pl.Trainer) -> bool:
    """Whether Lightning writes what the current training step logs; to compute it at other steps would be a waste."""
    return (trainer.fit_loop.total_batch_idx + 1) % int(getattr(trainer, "log_every_n_steps")) == 0  # noqa: B009


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients together."""
    return get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
