"""PLACEHOLDER DOCSTRING."""

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
    """Adam, its learning rate rising linearly and then falling by half a cosine."""

    lr: float | None = (
        1e-3  # the highest learning rate; null (of a GAN): what suits the size of the images
    )
    beta1: float = 0.9  # decay of the gradient's mean
    beta2: float = 0.999  # decay of its square's
    lr_warmup: float = 0.0  # share of the training in which the learning rate rises from 0
    lr_final: float = 1.0  # the last learning rate, as a share of lr; 1 keeps it constant

    def __post_init__(self) -> None:
        require(self.lr is None or self.lr > 0, "lr", "positive", self.lr)
        require(0 <= self.beta1 < 1, "beta1", "in [0, 1)", self.beta1)
        require(0 <= self.beta2 < 1, "beta2", "in [0, 1)", self.beta2)
        require(0 <= self.lr_warmup < 1, "lr_warmup", "in [0, 1)", self.lr_warmup)
        require(0 <= self.lr_final <= 1, "lr_final", "in [0, 1]", self.lr_final)

    def build(
        self, parameters: Iterable[nn.Parameter], num_steps: Callable[[], int]
    ) -> tuple[Adam, LambdaLR]:
        """Optimizer, and its learning-rate schedule over `num_steps()` steps, a number that may change on the way."""
        assert self.lr is not None, "settled before"
        optimizer = Adam(parameters, self.lr, (self.beta1, self.beta2), fused=True)
        return optimizer, LambdaLR(
            optimizer, lambda step: self.factor((step + 1) / max(1, num_steps()))
        )

    def factor(self, progress: float) -> float:
        """Share of `lr` at a share of the training."""
        if progress < self.lr_warmup:
            return progress / self.lr_warmup
        fallen = (min(1.0, progress) - self.lr_warmup) / (1 - self.lr_warmup)
        return self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * fallen))
