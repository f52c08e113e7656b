"""What torch.distributions lacks, or has only slower or for parameters of moderate size. Log-densities are in nats.

In distributions over images the last three dimensions of a sample are one image, (C, H, W); all before are the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution
from torch.distributions.constraints import Constraint
from torch.nn.functional import logsigmoid, softplus

NUM_LEVELS = 256  # of an 8-bit pixel: 0/255, 1/255, ..., 255/255
HALF_STEP = 0.5 / (NUM_LEVELS - 1)


class _EightBit(Constraint):
    """The 256 levels 0/255, ..., 255/255."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Whether each element lies on a level, up to rounding."""
        level = value * (NUM_LEVELS - 1)
        return (value >= 0) & (value <= 1) & ((level - level.round()).abs() < 1e-3)

    def __repr__(self) -> str:
        return "{0/255, ..., 255/255}"


eight_bit = _EightBit()


class ContinuousBernoulli(Distribution):
    """Density on [0, 1] proportional to exp(logit x), independent over pixels; exact for logits of any size.

    torch.distributions.ContinuousBernoulli clamps its probabilities, so that its normalizer is wrong by nats per image
    where logits are beyond about 14: on the black ground of MNIST.

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
        # density = exp(l x) l / (exp(l) - 1) = sigmoid(l)^x (1 - sigmoid(l))^(1 - x) * l / tanh(l / 2)
        log_unnormalized = value * self.logits - softplus(self.logits)
        return (log_unnormalized + self._log_normalizer()).sum((-3, -2, -1))

    def _log_normalizer(self) -> Tensor:
        """log(l / tanh(l / 2)), by its series where l is small."""
        small = self.logits.abs() < 0.1
        safe = torch.where(small, 1.0, self.logits)
        square = self.logits.square()
        series = 2 + square / 6 - square.square() / 360
        return torch.where(small, series, safe / torch.tanh(safe / 2)).log()

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l, in (0, 1)."""
        size = self.logits.abs()
        small = size < 0.1
        safe = torch.where(small, 1.0, size)
        above_half = torch.where(
            small, 0.5 + size / 12 - size**3 / 720, -1 / torch.expm1(-safe) - 1 / safe
        )
        return torch.where(self.logits > 0, above_half, 1 - above_half)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """By the inverse of the distribution function."""
        uniform = torch.rand(
            self._extended_shape(sample_shape), dtype=self.logits.dtype, device=self.logits.device
        )
        size = self.logits.abs()
        small = size < 1e-3
        safe = torch.where(small, 1.0, size)
        low = torch.where(
            small, uniform, -torch.log1p(uniform * torch.expm1(-safe)) / safe
        )  # for logits below 0
        return torch.where(self.logits > 0, 1 - low, low)


class EightBitCategorical(Distribution):
    """Any distribution over the 256 levels, independent over pixels and channels.

    Args:
        logits: (..., 256, C, H, W).
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(self, logits: Tensor) -> None:
        self.levels = Categorical(logits=logits.movedim(-4, -1), validate_args=False)
        batch = self.levels.batch_shape
        super().__init__(batch[:-3], batch[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        log_masses: Tensor = self.levels.log_prob((value * (NUM_LEVELS - 1)).round())
        return log_masses.sum((-3, -2, -1))

    @property
    def mean(self) -> Tensor:
        probabilities = self.levels.probs
        gray = torch.linspace(
            0, 1, NUM_LEVELS, dtype=probabilities.dtype, device=probabilities.device
        )
        return (probabilities * gray).sum(-1).clamp(0, 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        levels: Tensor = self.levels.sample(sample_shape)
        return levels / (NUM_LEVELS - 1)


class DiscretizedLogisticMixture(Distribution):
    """Mixture of logistic distributions, each rounded to the 256 levels; what lies beyond falls to levels 0 and 255.

    The components are shared by the channels of a pixel, and each channel's location depends linearly on the values of
    the channels before it. All masses follow from differences of logistic functions without any approximation.

    Args:
        logits: Of the components, (..., K, H, W).
        locations: In image units, (..., K, C, H, W).
        scales: In image units, positive, (..., K, C, H, W).
        coefficients: Of the earlier channels, (..., K, C (C - 1) / 2, H, W): 1 on 0, 2 on 0, 2 on 1, ...

    Source: Salimans et al. 2017, arXiv:1701.05517.
    """

    arg_constraints: dict[str, Constraint] = {}

    def __init__(
        self, logits: Tensor, locations: Tensor, scales: Tensor, coefficients: Tensor
    ) -> None:
        self.logits, self.locations, self.scales, self.coefficients = (
            logits,
            locations,
            scales,
            coefficients,
        )
        super().__init__(locations.shape[:-4], locations.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.unsqueeze(-4)
        locations = torch.stack([self._location(c, x) for c in range(x.shape[-3])], -3)
        upper, lower = (
            (x + HALF_STEP - locations) / self.scales,
            (x - HALF_STEP - locations) / self.scales,
        )
        # sigmoid(upper) - sigmoid(lower) = sigmoid(upper) sigmoid(-lower) (1 - exp(lower - upper))
        between = torch.log(-torch.expm1(-2 * HALF_STEP / self.scales))
        log_upper = torch.where(x > 1 - HALF_STEP, 0.0, logsigmoid(upper))
        log_lower = torch.where(x < HALF_STEP, 0.0, logsigmoid(-lower))
        is_inner = (x >= HALF_STEP) & (x <= 1 - HALF_STEP)
        log_mass = (log_upper + log_lower + torch.where(is_inner, between, 0.0)).sum(-3)
        return torch.logsumexp(self.logits.log_softmax(-3) + log_mass, -3).sum((-2, -1))

    def _location(self, channel: int, x: Tensor) -> Tensor:
        """Location (..., K, H, W) of one channel, given at least all channels before it in x (..., 1 or K, C, H, W)."""
        first = channel * (channel - 1) // 2
        coefficients = self.coefficients[..., first : first + channel, :, :]
        shift = (coefficients * (x[..., :channel, :, :] - 0.5)).sum(-3)
        return self.locations[..., channel, :, :] + shift

    @property
    def mean(self) -> Tensor:
        """In [0, 1], and differentiable: of the logistic cut at 0 and 1, before rounding (at most 1/510 away).

        A later channel's mean is taken at the means of those before it, which is exact as long as little is cut.
        """
        means: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            before = torch.stack(means, -3) if means else self.locations[..., :0, :, :]
            location, scale = self._location(channel, before), self.scales[..., channel, :, :]
            means.append(scale * (softplus(location / scale) - softplus((location - 1) / scale)))
        weights = self.logits.softmax(-3).unsqueeze(-3)
        return (weights * torch.stack(means, -3)).sum(-4).clamp(0, 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            chosen = Categorical(logits=self.logits.movedim(-3, -1), validate_args=False).sample(
                sample_shape
            )
            one_hot = torch.nn.functional.one_hot(chosen, self.logits.shape[-3]).movedim(-1, -3)
            x: list[Tensor] = []
            for channel in range(self.event_shape[0]):
                before = torch.stack(x, -3).unsqueeze(-4) if x else self.locations[..., :0, :, :]
                location = (one_hot * self._location(channel, before)).sum(-3)
                scale = (one_hot * self.scales[..., channel, :, :]).sum(-3)
                uniform = torch.rand_like(location).clamp(1e-7, 1 - 1e-7)
                level = (
                    (location + scale * torch.logit(uniform)).clamp(0, 1) * (NUM_LEVELS - 1)
                ).round()
                x.append(level / (NUM_LEVELS - 1))
            return torch.stack(x, -3)


def mean_of(distribution: Distribution, num_samples: int = 64) -> Tensor:
    """Mean of a distribution: exact where it is known, else of samples."""
    try:
        return distribution.mean
    except NotImplementedError:
        return distribution.sample(torch.Size([num_samples])).mean(0)
