"""Scale parameters of location-scale likelihoods, in image units.

learned        one trainable scale, shared by all pixels and channels
per_channel    one trainable scale per channel
per_pixel      one scale per pixel and channel of each image, predicted by the decoder
optimal        maximum-likelihood scale of the training residuals (running mean)
a number       constant scale
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vaegan.runtime.collectives import all_reduce_mean

SCALE_KINDS = ("learned", "per_channel", "per_pixel", "optimal")
AVERAGING_WINDOW = 50  # length of the running mean of scale=optimal, in training batches


def build_scale(
    kind: str | float, num_channels: int, power: int, initial: float, minimum: float
) -> NoiseScale:
    """Build the noise scale for `likelihood.scale`.

    Args:
        kind: One of `SCALE_KINDS`, or a number for a constant scale in image units.
        num_channels: Number of image channels, C.
        power: Exponent p of `OptimalScale`.
        initial: Scale before training, in image units. Ignored by a constant scale.
        minimum: Lower bound of the scale, in image units. Ignored by a constant scale.
    """
    match kind:
        case "learned":
            return LearnedScale(1, initial, minimum)
        case "per_channel":
            return LearnedScale(num_channels, initial, minimum)
        case "per_pixel":
            return PerPixelScale(initial, minimum)
        case "optimal":
            return OptimalScale(power, initial, minimum)
        case _:
            return FixedScale(float(kind))


class NoiseScale(nn.Module, abc.ABC):
    """Noise scale of a location-scale likelihood, in image units."""

    params_per_channel = 0  # extra decoder output channels per image channel

    @abc.abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Return positive scales that broadcast to (..., C, H, W).

        Args:
            raw: Unconstrained decoder output, (..., params_per_channel * C, H, W).
        """

    def update_running_scale(self, residuals: Tensor) -> None:
        """Update running statistics from training residuals, target - location, (..., C, H, W)."""


class FixedScale(NoiseScale):
    """Constant scale, not trained and not saved with the weights."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value), persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        return self.value


class LearnedScale(NoiseScale):
    """Trainable scale, minimum + exp(parameter), for the whole image or for each channel.

    Args:
        num_channels: C for one scale per channel, 1 for one shared scale.
        initial: Scale before training, in image units.
        minimum: Lower bound of the scale, in image units.

    Source: Rybkin et al. 2021, arXiv:2006.13202.
    """

    def __init__(self, num_channels: int, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        log_excess = math.log(initial - minimum)
        self.log_excess = nn.Parameter(torch.full((num_channels, 1, 1), log_excess))

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + self.log_excess.exp()


class PerPixelScale(NoiseScale):
    """Scale predicted by the decoder for each pixel and channel: minimum + softplus(raw + shift).

    `shift` is chosen so that raw = 0 gives `initial`.
    """

    params_per_channel = 1

    def __init__(self, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        self.shift = math.log(math.expm1(initial - minimum))

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + softplus(raw + self.shift)


class OptimalScale(NoiseScale):
    """Maximum-likelihood scale of the residuals: (mean |target - location|^p)^(1/p).

    p is 2 for Gaussian and 1 for Laplace noise. The mean is a running mean over training batches:
    a plain average of the first `AVERAGING_WINDOW` batches, then exponential with weight
    1 / `AVERAGING_WINDOW`. It is saved with the weights. Validation and test images never enter it.

    Source: Rybkin et al. 2021, arXiv:2006.13202, "optimal sigma-VAE".
    """

    mean_power: Tensor
    num_batches: Tensor

    def __init__(self, power: int, initial: float, minimum: float) -> None:
        super().__init__()
        self.power = power
        self.minimum = minimum
        self.register_buffer("mean_power", torch.tensor(initial**power))
        self.register_buffer("num_batches", torch.tensor(0))

    def forward(self, raw: Tensor) -> Tensor:
        return self.mean_power.pow(1 / self.power).clamp(min=self.minimum)

    @torch.no_grad()
    def update_running_scale(self, residuals: Tensor) -> None:
        batch_mean = residuals.abs().pow(self.power).mean()
        batch_mean = all_reduce_mean(batch_mean.to(self.mean_power.dtype))
        # a step with a non-finite loss may be skipped, so its batch must not change the mean
        is_finite = batch_mean.isfinite()
        batch_mean = torch.where(is_finite, batch_mean, self.mean_power)
        self.num_batches += is_finite
        weight = 1 / self.num_batches.clamp(min=1, max=AVERAGING_WINDOW)
        self.mean_power.lerp_(batch_mean, weight)
