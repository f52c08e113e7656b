"""The 256 levels of an 8-bit pixel, and the categorical distribution over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.distributions.constraints import Constraint

NUM_LEVELS = 256  # levels of an 8-bit pixel: 0/255, 1/255, ..., 255/255
HALF_STEP = 0.5 / (NUM_LEVELS - 1)  # half the distance between two levels, in image units
ROUNDING_TOLERANCE = 1e-3  # largest float error of a value on a level, in levels


class _EightBit(Constraint):
    """Constraint to the 256 levels 0/255, ..., 255/255."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Return a bool tensor: True where a value lies on a level, up to float rounding."""
        level = value * (NUM_LEVELS - 1)
        is_in_range = (value >= 0) & (value <= 1)
        return is_in_range & ((level - level.round()).abs() < ROUNDING_TOLERANCE)

    def __repr__(self) -> str:
        return "{0/255, ..., 255/255}"


eight_bit = _EightBit()


class EightBitCategorical(Distribution):
    """Categorical distribution over the 256 levels, independent over pixels and channels.

    Args:
        logits: Unnormalized log-probabilities of the levels, (..., 256, C, H, W).
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(self, logits: Tensor) -> None:
        self.levels = Categorical(logits=logits.movedim(-4, -1), validate_args=False)
        shape = self.levels.batch_shape
        super().__init__(shape[:-3], shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log P(x), (...), in nats per image, of images (..., C, H, W) on the levels."""
        level = (value * (NUM_LEVELS - 1)).round()
        return self.levels.log_prob(level).sum((-3, -2, -1))

    @property
    def mean(self) -> Tensor:
        """Mean of each pixel, in [0, 1], (..., C, H, W)."""
        probs = self.levels.probs
        values = torch.linspace(0, 1, NUM_LEVELS, dtype=probs.dtype, device=probs.device)
        return (probs * values).sum(-1).clamp(0, 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw images on the levels, (*sample_shape, ..., C, H, W)."""
        return self.levels.sample(sample_shape) / (NUM_LEVELS - 1)
