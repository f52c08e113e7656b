"""The continuous Bernoulli distribution over images with gray values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

SERIES_BELOW = 0.1  # |logit| below which the normalizer and the mean are Taylor series
UNIFORM_BELOW = 1e-3  # |logit| below which samples are uniform


class ContinuousBernoulli(Distribution):
    """Density on [0, 1] proportional to exp(logit x), independent over pixels, for any logits.

    torch.distributions.ContinuousBernoulli clamps its probabilities. Its normalizer is therefore
    wrong by nats per image where logits exceed about 14, as on the black background of MNIST.

    Args:
        logits: (..., C, H, W).

    Source: Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845.
    """

    arg_constraints: dict[str, Constraint] = {}
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-3], logits.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        # density = exp(l x) l / (exp(l) - 1)
        #         = sigmoid(l)^x (1 - sigmoid(l))^(1 - x) * l / tanh(l / 2)
        log_unnormalized = value * self.logits - softplus(self.logits)
        return (log_unnormalized + self._log_normalizer()).sum((-3, -2, -1))

    def _log_normalizer(self) -> Tensor:
        """Return log(l / tanh(l / 2)), shape of the logits."""
        is_small = self.logits.abs() < SERIES_BELOW
        safe = torch.where(is_small, 1.0, self.logits)
        square = self.logits.square()
        series = 2 + square / 6 - square.square() / 360
        return torch.where(is_small, series, safe / torch.tanh(safe / 2)).log()

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l, in (0, 1)."""
        size = self.logits.abs()
        is_small = size < SERIES_BELOW
        safe = torch.where(is_small, 1.0, size)
        series = 0.5 + size / 12 - size**3 / 720
        closed_form = -1 / torch.expm1(-safe) - 1 / safe
        mean_of_size = torch.where(is_small, series, closed_form)
        return torch.where(self.logits > 0, mean_of_size, 1 - mean_of_size)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw by the inverse of the distribution function."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        size = self.logits.abs()
        is_small = size < UNIFORM_BELOW
        safe = torch.where(is_small, 1.0, size)
        inverse = -torch.log1p(uniform * torch.expm1(-safe)) / safe
        negative_logit_sample = torch.where(is_small, uniform, inverse)
        return torch.where(self.logits > 0, 1 - negative_logit_sample, negative_logit_sample)
