"""The 256 levels of an 8-bit pixel, and the categorical distribution over them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.distributions.constraints import Constraint

NUM_LEVELS = 256  # of an 8-bit pixel: 0/255, 1/255, ..., 255/255
HALF_STEP = 0.5 / (NUM_LEVELS - 1)  # half the distance between two levels
ROUNDING_TOLERANCE = 1e-3  # levels


class _EightBit(Constraint):
    """The 256 levels 0/255, ..., 255/255."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Return a bool for each element: True if it lies on a level, up to rounding."""
        level = value * (NUM_LEVELS - 1)
        is_in_range = (value >= 0) & (value <= 1)
        return is_in_range & ((level - level.round()).abs() < ROUNDING_TOLERANCE)

    def __repr__(self) -> str:
        return "{0/255, ..., 255/255}"


eight_bit = _EightBit()


class EightBitCategorical(Distribution):
    """Free probabilities for the 256 levels, independent over pixels and channels.

    Args:
        logits: (..., 256, C, H, W).
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(self, logits: Tensor) -> None:
        self.levels = Categorical(logits=logits.movedim(-4, -1), validate_args=False)
        shape = self.levels.batch_shape
        super().__init__(shape[:-3], shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        level = (value * (NUM_LEVELS - 1)).round()
        return self.levels.log_prob(level).sum((-3, -2, -1))

    @property
    def mean(self) -> Tensor:
        probs = self.levels.probs
        values = torch.linspace(0, 1, NUM_LEVELS, dtype=probs.dtype, device=probs.device)
        return (probs * values).sum(-1).clamp(0, 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.levels.sample(sample_shape) / (NUM_LEVELS - 1)
