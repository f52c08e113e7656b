"""Adam with linear warm-up and cosine decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from vaegan.config import require


@dataclass
class OptimizerConfig:
    """Adam with linear warm-up and cosine decay of the learning rate."""

    # peak learning rate, > 0; null: depends on the data (VAE: 1e-3 for natural images, else 3e-3)
    lr: float | None = 1e-3
    # decay rate of the running mean of the gradient, in [0, 1); null (GAN only): depends on the
    # data
    beta1: float | None = 0.9
    beta2: float = 0.999  # decay rate of the running mean of the squared gradient, in [0, 1)
    # fraction of training during which the learning rate rises linearly from 0, in [0, 1)
    lr_warmup: float = 0.0
    # learning rate at the end of training as a fraction of lr, in [0, 1]; 1: no decay
    lr_final: float = 1.0

    def __post_init__(self) -> None:
        require(self.lr is None or self.lr > 0, "lr", "positive", self.lr)
        beta1 = self.beta1
        require(beta1 is None or 0 <= beta1 < 1, "beta1", "in [0, 1)", beta1)
        for key in ("beta2", "lr_warmup"):
            value = getattr(self, key)
            require(0 <= value < 1, key, "in [0, 1)", value)
        require(0 <= self.lr_final <= 1, "lr_final", "in [0, 1]", self.lr_final)

    def duration_dependent_settings(self) -> list[str]:
        """Return the settings that relate the learning rate to the duration, as "key=value"."""
        neutral = {"lr_warmup": 0.0, "lr_final": 1.0}
        values = {key: getattr(self, key) for key in neutral}
        return [f"{key}={value:g}" for key, value in values.items() if value != neutral[key]]

    def build(
        self, parameters: Iterable[nn.Parameter], num_steps: Callable[[], int]
    ) -> tuple[Adam, LambdaLR]:
        """Build the optimizer and its learning-rate schedule.

        Args:
            parameters: Parameters to train.
            num_steps: Returns the length of the schedule in optimizer steps, which may change
                during training.

        Raises:
            ValueError: `lr` or `beta1` is None.
        """
        if self.lr is None or self.beta1 is None:
            settings = f"lr={self.lr}, beta1={self.beta1}"
            raise ValueError(f"all settings of the optimizer must be set; got {settings}")
        optimizer = Adam(parameters, self.lr, (self.beta1, self.beta2), fused=True)

        def multiplier(step: int) -> float:
            progress = (step + 1) / max(1, num_steps())
            return lr_multiplier(progress, self.lr_warmup, self.lr_final)

        return optimizer, LambdaLR(optimizer, multiplier)


def lr_multiplier(progress: float, lr_warmup: float, lr_final: float) -> float:
    """Return the learning rate as a fraction of its peak, at a fraction of training in [0, 1]."""
    if progress < lr_warmup:
        return progress / lr_warmup
    decay_progress = (min(1.0, progress) - lr_warmup) / (1 - lr_warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * decay_progress))
    return lr_final + (1 - lr_final) * cosine
