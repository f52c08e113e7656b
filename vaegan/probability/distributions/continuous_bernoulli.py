"""The continuous Bernoulli distribution over images with gray values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import softplus

SERIES_BELOW = 0.1  # |logit| below which Taylor series replace the closed forms
UNIFORM_BELOW = 1e-3  # |logit| below which samples are drawn from the uniform distribution


class ContinuousBernoulli(Distribution):
    """Continuous Bernoulli density on [0, 1], independent over pixels and channels.

    With logit l of a pixel: p(x) = exp(l x) l / (exp(l) - 1), and p(x) = 1 for l = 0.

    torch.distributions.ContinuousBernoulli clamps its probabilities. Its normalizer is therefore
    wrong by several nats per image where |l| exceeds about 14, as on the black background of MNIST.

    Args:
        logits: Any real values, (..., C, H, W).

    Source: Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845.
    """

    arg_constraints: dict[str, Constraint] = {}
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape[:-3], logits.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x), (...), in nats per image, of images (..., C, H, W) in [0, 1]."""
        # p(x) = exp(l x) l / (exp(l) - 1)
        #      = sigmoid(l)^x (1 - sigmoid(l))^(1 - x) * l / tanh(l / 2)
        log_unnormalized = value * self.logits - softplus(self.logits)
        return (log_unnormalized + self._log_normalizer()).sum((-3, -2, -1))

    def _log_normalizer(self) -> Tensor:
        """Return log(l / tanh(l / 2)) of each logit l, (..., C, H, W)."""
        is_small = self.logits.abs() < SERIES_BELOW
        safe = torch.where(is_small, 1.0, self.logits)
        square = self.logits.square()
        series = 2 + square / 6 - square.square() / 360
        return torch.where(is_small, series, safe / torch.tanh(safe / 2)).log()

    @property
    def mean(self) -> Tensor:
        """Mean of each pixel, 1 / (1 - exp(-l)) - 1 / l, in (0, 1), (..., C, H, W)."""
        size = self.logits.abs()
        is_small = size < SERIES_BELOW
        safe = torch.where(is_small, 1.0, size)
        series = 0.5 + size / 12 - size**3 / 720
        closed_form = -1 / torch.expm1(-safe) - 1 / safe
        mean_of_size = torch.where(is_small, series, closed_form)
        return torch.where(self.logits > 0, mean_of_size, 1 - mean_of_size)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw differentiable samples, (*sample_shape, ..., C, H, W), with the inverse CDF."""
        shape = self._extended_shape(sample_shape)
        uniform = torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device)
        size = self.logits.abs()
        is_small = size < UNIFORM_BELOW
        safe = torch.where(is_small, 1.0, size)
        inverse = -torch.log1p(uniform * torch.expm1(-safe)) / safe
        negative_logit_sample = torch.where(is_small, uniform, inverse)
        return torch.where(self.logits > 0, 1 - negative_logit_sample, negative_logit_sample)
