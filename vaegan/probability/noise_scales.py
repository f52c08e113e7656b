"""How large the noise of a likelihood with a location and a scale is. All scales are in image units.

learned        one number, learned with the decoder
per_channel    one number for each channel, learned with the decoder
per_pixel      from the decoder, one for each pixel of each image
optimal        the best one for the residuals of the training images, in closed form
a number       fixed
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from vaegan.runtime.collectives import all_reduce_mean


class Scale(nn.Module, abc.ABC):
    """Maps the decoder's raw scales to scales; the raw ones may have no channels."""

    params_per_channel: int

    @abc.abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Scales that broadcast to (B, C, H, W), of raw ones (B, params_per_channel * C, H, W)."""

    def update_running_scale(self, residuals: Tensor) -> None:
        """Called with target minus location of every training batch."""


class Fixed(Scale):
    """Always the same."""

    params_per_channel = 0
    value: Tensor

    def __init__(self, value: float) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(value), persistent=False)

    def forward(self, raw: Tensor) -> Tensor:
        return self.value


class Learned(Scale):
    """A parameter for all pixels, or for each channel. Source: Rybkin et al. 2021, arXiv:2006.13202."""

    params_per_channel = 0

    def __init__(self, num_channels: int, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        self.log_excess = nn.Parameter(
            torch.full((num_channels, 1, 1), math.log(initial - minimum))
        )

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + self.log_excess.exp()


class PerPixel(Scale):
    """What the decoder says."""

    params_per_channel = 1

    def __init__(self, initial: float, minimum: float) -> None:
        super().__init__()
        self.minimum = minimum
        self.shift = math.log(math.expm1(initial - minimum))

    def forward(self, raw: Tensor) -> Tensor:
        return self.minimum + softplus(raw + self.shift)


class Optimal(Scale):
    """The maximum-likelihood scale of the residuals: (mean |residual|^p)^(1/p), p = 2 for a Gaussian, 1 for a Laplace.

    It is a running mean over the training batches, the last 50 counting most, and is stored with the weights. Images
    that are scored in evaluation have no part in it. Source: Rybkin et al. 2021, arXiv:2006.13202, "optimal sigma-VAE".
    """

    params_per_channel = 0
    HORIZON = 50  # batches

    mean_power: Tensor
    num_batches: Tensor

    def __init__(self, power: int, initial: float, minimum: float) -> None:
        super().__init__()
        self.power, self.minimum = power, minimum
        self.register_buffer("mean_power", torch.tensor(initial**power))
        self.register_buffer("num_batches", torch.tensor(0))

    def forward(self, raw: Tensor) -> Tensor:
        return self.mean_power.pow(1 / self.power).clamp(min=self.minimum)

    @torch.no_grad()
    def update_running_scale(self, residuals: Tensor) -> None:
        found = all_reduce_mean(residuals.abs().pow(self.power).mean().to(self.mean_power.dtype))
        is_good = found.isfinite()  # a bad batch, which may be left out, leaves no trace
        self.num_batches += is_good
        found = torch.where(is_good, found, self.mean_power)
        self.mean_power.lerp_(found, 1 / self.num_batches.clamp(min=1, max=self.HORIZON))


KINDS = ("learned", "per_channel", "per_pixel", "optimal")


def build_scale(
    kind: str | float, num_channels: int, power: int, initial: float, minimum: float
) -> Scale:
    """The scale that a config names: one of `KINDS`, or a number."""
    match kind:
        case "learned":
            return Learned(1, initial, minimum)
        case "per_channel":
            return Learned(num_channels, initial, minimum)
        case "per_pixel":
            return PerPixel(initial, minimum)
        case "optimal":
            return Optimal(power, initial, minimum)
        case _:
            return Fixed(float(kind))
