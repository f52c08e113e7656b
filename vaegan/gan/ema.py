"""Exponential moving average of a generator."""

from __future__ import annotations

import math
from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaegan.gan.generator import Generator


class GeneratorEMA(AveragedModel):
    """Exponential moving average (EMA) of a generator's weights; buffers are copied.

    `ema.module` is the averaged generator: it is evaluated, sampled and saved.

    Args:
        generator: The generator that is trained.
        half_life: Images after which the weight of a past generator in the average has halved.
        rampup: The half-life is at most this fraction of the images so far; 0 disables the ramp.
        batch_size: Images from one update to the next.
    """

    module: Generator

    def __init__(
        self, generator: Generator, half_life: float, rampup: float, batch_size: int
    ) -> None:
        super().__init__(generator, multi_avg_fn=self._average, use_buffers=False)
        self.half_life = half_life
        self.rampup = rampup
        self.batch_size = batch_size
        self.requires_grad_(False).eval()

    def decay(self, num_images: int) -> float:
        """Return the share of the old average that an update keeps, after so many images."""
        ramped = num_images * self.rampup if self.rampup else math.inf
        half_life = min(self.half_life, ramped)
        return 0.5 ** (self.batch_size / half_life) if half_life else 0.0

    def _average(self, averaged: Any, current: Any, num_updates: Any) -> None:
        decay = self.decay(int(num_updates) * self.batch_size)
        get_ema_multi_avg_fn(decay)(averaged, current, num_updates)
