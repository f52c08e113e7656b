"""Scale parameters of location-scale likelihoods, in image units.

learned        one number, learned with the decoder
per_channel    one number for each channel, learned with the decoder
per_pixel      decoder output, one number for each pixel of each image
optimal        maximum-likelihood scale of the residuals of the training images
a number       fixed
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vaegan.runtime.collectives import all_reduce_mean

SCALE_KINDS = ("learned", "per_channel", "per_pixel", "optimal")
AVERAGING_WINDOW = 50  # batches of the running mean behind scale=optimal


def build_scale(
    kind: str | float, num_channels: int, power: int, initial: float, minimum: float
) -> NoiseScale:
    """Construct the scale that a config asks for.

    Args:
        kind: One of `SCALE_KINDS`, or a fixed scale.
        num_channels: Of the images.
        power: p of `OptimalScale`.
        initial: Scale before training.
        minimum: Lower bound of every scale that is not fixed.
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
    """Scale of the noise, from the decoder's scale output if it has one."""

    params_per_channel = 0  # of the decoder's scale output, for each image channel

    @abc.abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Return scales that broadcast to (B, C, H, W).

        Args:
            raw: Decoder output before any constraint, (B, params_per_channel * C, H, W).
        """

    def update_running_scale(self, residuals: Tensor) -> None:
        """Update statistics from the residuals, target - location, of a training batch."""


class FixedScale(NoiseScale):
    """Constant scale."""

    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value), persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        return self.value


class LearnedScale(NoiseScale):
    """One parameter, or one for each channel. Source: Rybkin et al. 2021, arXiv:2006.13202."""

    def __init__(self, num_channels: int, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        log_excess = math.log(initial - minimum)
        self.log_excess = nn.Parameter(torch.full((num_channels, 1, 1), log_excess))

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + self.log_excess.exp()


class PerPixelScale(NoiseScale):
    """Scale that the decoder predicts for each pixel and channel; `initial` at an output of 0."""

    params_per_channel = 1

    def __init__(self, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        self.shift = math.log(math.expm1(initial - minimum))

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + softplus(raw + self.shift)


class OptimalScale(NoiseScale):
    """Maximum-likelihood scale of the residuals: (mean |residual|^p)^(1/p).

    p is 2 for a Gaussian and 1 for a Laplace. The mean is a running mean over training batches,
    dominated by the last `AVERAGING_WINDOW` of them. It is saved with the weights and never
    includes images that are evaluated.

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
        # a batch that is not finite may be skipped in training, so it leaves the mean as it is
        is_finite = batch_mean.isfinite()
        batch_mean = torch.where(is_finite, batch_mean, self.mean_power)
        self.num_batches += is_finite
        weight = 1 / self.num_batches.clamp(min=1, max=AVERAGING_WINDOW)
        self.mean_power.lerp_(batch_mean, weight)
