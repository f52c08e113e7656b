"""Exponential moving average (EMA) of a generator."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from vaegan.gan.generator import Generator


class GeneratorEMA(nn.Module):
    """Exponential moving average (EMA) of a generator's parameters; buffers are copied.

    `ema.module` is the EMA generator: it is evaluated, sampled and saved. The half-life is in
    images, independent of the batch size. Half-life and ramp-up follow the code of Karras et al.
    2020, arXiv:2006.06676. torch's `AveragedModel` is not used: in each update it reads a counter
    on the device, which makes the host wait for all queued GPU work.

    Args:
        generator: The generator that is trained.
        half_life: Images after which the weight of a past generator in the EMA has halved, > 0.
        rampup: The half-life is at most this fraction of the images so far; 0: no ramp-up.
        batch_size: Images per update, over all devices.
    """

    def __init__(
        self, generator: Generator, half_life: float, rampup: float, batch_size: int
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(generator)
        self.half_life = half_life
        self.rampup = rampup
        self.batch_size = batch_size
        self.requires_grad_(False).eval()

    def decay(self, num_images: int) -> float:
        """Return the weight of the old EMA in an update after `num_images` images, in [0, 1).

        decay = 0.5^(batch_size / min(half_life, rampup * num_images)), and 0 for num_images = 0
        """
        ramped = num_images * self.rampup if self.rampup else math.inf
        half_life = min(self.half_life, ramped) if num_images else 0.0
        return 0.5 ** (self.batch_size / half_life) if half_life else 0.0

    @torch.no_grad()
    def update(self, generator: Generator, num_updates: int) -> None:
        """Move the EMA toward a generator.

        Args:
            generator: The generator that is trained.
            num_updates: Number of earlier updates; the first update copies the generator.
        """
        decay = self.decay(num_updates * self.batch_size)
        torch._foreach_lerp_(
            list(self.module.parameters()), list(generator.parameters()), 1 - decay
        )
        for average, buffer in zip(self.module.buffers(), generator.buffers(), strict=True):
            average.copy_(buffer)
