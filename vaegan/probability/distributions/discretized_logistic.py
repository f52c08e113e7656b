"""Mixtures of logistic distributions, discretized to the 256 levels of 8-bit pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid, one_hot, softplus

from vaegan.probability.distributions.pixel_levels import HALF_STEP, NUM_LEVELS
from vaegan.runtime.seeding import uniform_noise

MIN_UNIFORM = 1e-7  # bound of the uniform samples, which keeps their logits finite


class DiscretizedLogisticMixture(Distribution):
    """Mixture of K logistic distributions per pixel, rounded to the 256 levels of 8-bit images.

    With h = 1/510, half the distance between two levels, component k has the mass

        P_k(x_c | x_<c) = sigmoid((x_c + h - m) / s) - sigmoid((x_c - h - m) / s),
        m = locations[k, c] + sum over c' < c of coefficients[k, c c'] (x_c' - 1/2).

    Levels 0 and 255 also get the mass of the tails. All channels of a pixel share the component:
    P(x) = sum_k w_k prod_c P_k(x_c | x_<c). Pixels are independent.

    Args:
        logits: Unnormalized log-weights of the components, (..., K, H, W).
        locations: In image units, (..., K, C, H, W).
        scales: In image units, positive, (..., K, C, H, W).
        coefficients: Dependence on earlier channels, (..., K, C (C - 1) / 2, H, W), for the pairs
            (c, c') = (1, 0), (2, 0), (2, 1), ...

    Source: Salimans et al. 2017, arXiv:1701.05517, eq. 2 and 3.
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(
        self, logits: Tensor, locations: Tensor, scales: Tensor, coefficients: Tensor
    ) -> None:
        self.logits = logits
        self.locations = locations
        self.scales = scales
        self.coefficients = coefficients
        super().__init__(locations.shape[:-4], locations.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log P(x), (...), in nats per image, of images (..., C, H, W) on the levels."""
        x = value.unsqueeze(-4)
        num_channels = x.shape[-3]
        locations = torch.stack([self._location(c, x) for c in range(num_channels)], -3)
        upper = (x + HALF_STEP - locations) / self.scales
        lower = (x - HALF_STEP - locations) / self.scales
        # sigmoid(upper) - sigmoid(lower) = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))
        log_difference = torch.log(-torch.expm1(-2 * HALF_STEP / self.scales))
        log_upper = torch.where(x > 1 - HALF_STEP, 0.0, logsigmoid(upper))
        log_lower = torch.where(x < HALF_STEP, 0.0, logsigmoid(-lower))
        is_inner = (x >= HALF_STEP) & (x <= 1 - HALF_STEP)
        log_masses = log_upper + log_lower + torch.where(is_inner, log_difference, 0.0)
        log_weights = self.logits.log_softmax(-3)
        return torch.logsumexp(log_weights + log_masses.sum(-3), -3).sum((-2, -1))

    def _location(self, channel: int, x: Tensor) -> Tensor:
        """Return the location of a channel given the earlier channels, (..., K, H, W).

        Args:
            channel: Index c of the channel.
            x: Values of at least the first c channels, (..., 1 or K, channels, H, W).
        """
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :, :]
        shift = (coefficients * (x[..., :channel, :, :] - 0.5)).sum(-3)
        return self.locations[..., channel, :, :] + shift

    @property
    def mean(self) -> Tensor:
        """Differentiable mean of the clamped but unrounded pixels, in [0, 1], (..., C, H, W).

        Rounding changes the mean by at most 1/510. The location of a channel is computed from the
        means of the earlier channels. With clamping this is an approximation: its error is largest
        for wide distributions near 0 or 1, where it can exceed ten of the 255 levels.
        """
        means: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            earlier = torch.stack(means, -3) if means else self.locations[..., :0, :, :]
            location = self._location(channel, earlier)
            scale = self.scales[..., channel, :, :]
            means.append(scale * (softplus(location / scale) - softplus((location - 1) / scale)))
        weights = self.logits.softmax(-3).unsqueeze(-3)
        return (weights * torch.stack(means, -3)).sum(-4).clamp(0, 1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw images on the levels, (*sample_shape, ..., C, H, W)."""
        components = Categorical(logits=self.logits.movedim(-3, -1), validate_args=False)
        chosen = components.sample(sample_shape)
        mask = one_hot(chosen, self.logits.shape[-3]).movedim(-1, -3)
        x: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            earlier = torch.stack(x, -3).unsqueeze(-4) if x else self.locations[..., :0, :, :]
            location = (mask * self._location(channel, earlier)).sum(-3)
            scale = (mask * self.scales[..., channel, :, :]).sum(-3)
            uniform = uniform_noise(location).clamp(MIN_UNIFORM, 1 - MIN_UNIFORM)
            value = (location + scale * torch.logit(uniform)).clamp(0, 1)
            level = (value * (NUM_LEVELS - 1)).round()
            x.append(level / (NUM_LEVELS - 1))
        return torch.stack(x, -3)
