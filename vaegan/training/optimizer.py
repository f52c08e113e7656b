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

    # peak learning rate, > 0; null (GAN only): depends on the image size
    lr: float | None = 1e-3
    beta1: float = 0.9  # decay rate of the running mean of the gradient, in [0, 1)
    beta2: float = 0.999  # decay rate of the running mean of the squared gradient, in [0, 1)
    # fraction of training during which the learning rate rises linearly from 0, in [0, 1)
    lr_warmup: float = 0.0
    # learning rate at the end of training as a fraction of lr, in [0, 1]; 1: no decay
    lr_final: float = 1.0

    def __post_init__(self) -> None:
        require(self.lr is None or self.lr > 0, "lr", "positive", self.lr)
        require(0 <= self.beta1 < 1, "beta1", "in [0, 1)", self.beta1)
        require(0 <= self.beta2 < 1, "beta2", "in [0, 1)", self.beta2)
        require(0 <= self.lr_warmup < 1, "lr_warmup", "in [0, 1)", self.lr_warmup)
        require(0 <= self.lr_final <= 1, "lr_final", "in [0, 1]", self.lr_final)

    def build(
        self, parameters: Iterable[nn.Parameter], num_steps: Callable[[], int]
    ) -> tuple[Adam, LambdaLR]:
        """Build the optimizer and its learning-rate schedule.

        Args:
            parameters: Parameters to train.
            num_steps: Returns the length of the schedule in optimizer steps, which may change
                during training.

        Raises:
            ValueError: `lr` is None.
        """
        if self.lr is None:
            raise ValueError("lr must be set before the optimizer is built; got None")
        optimizer = Adam(parameters, self.lr, (self.beta1, self.beta2), fused=True)

        def multiplier(step: int) -> float:
            return self.lr_multiplier((step + 1) / max(1, num_steps()))

        return optimizer, LambdaLR(optimizer, multiplier)

    def lr_multiplier(self, progress: float) -> float:
        """Return the learning-rate multiplier at a fraction of training, in [0, 1]."""
        if progress < self.lr_warmup:
            return progress / self.lr_warmup
        decay_progress = (min(1.0, progress) - self.lr_warmup) / (1 - self.lr_warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * decay_progress))
        return self.lr_final + (1 - self.lr_final) * cosine
