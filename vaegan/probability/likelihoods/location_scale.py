"""Location-scale likelihoods: Gaussian and Laplace noise."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.probability.likelihoods.density import Density
from vaegan.probability.noise_scales import SCALE_KINDS, build_scale


class LocationScale(Density, abc.ABC):
    """Noise around a location m = sigmoid(params) in (0, 1), with a scale from `noise_scales`.

    Decoder output: C channels for the location, then C channels if `scale=per_pixel`.
    """

    family: ClassVar[Callable[..., Distribution]]
    residual_power: ClassVar[int]  # p of `OptimalScale`

    @dataclass
    class Config(Density.Config):
        # noise scale: learned (one number), per_channel (one number per channel), per_pixel
        # (predicted by the decoder), optimal (computed from the training residuals), or a fixed
        # number > 0, in image units
        scale: int | float | str = "learned"
        # noise scale before training, in image units, > min_scale; unused if scale is a number
        initial_scale: float = 0.2
        # smallest noise scale, in image units, > 0; keeps the density finite; unused if scale is a
        # number; the default is a quarter of an 8-bit level
        min_scale: float = 1e-3

        def __post_init__(self) -> None:
            super().__post_init__()
            if isinstance(self.scale, str):
                is_valid = self.scale in SCALE_KINDS
            else:
                is_valid = self.scale > 0
            expected = f"a positive number, or one of {', '.join(SCALE_KINDS)}"
            require(is_valid, "scale", expected, self.scale)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)
            is_larger = self.initial_scale > self.min_scale
            expected = f"larger than min_scale={self.min_scale}"
            require(is_larger, "initial_scale", expected, self.initial_scale)

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        channels = image_shape[0]
        scale = build_scale(
            config.scale, channels, self.residual_power, config.initial_scale, config.min_scale
        )
        super().__init__(config, image_shape, channels * (1 + scale.params_per_channel))
        self.scale = scale

    def location(self, params: Tensor) -> Tensor:
        """Return locations in (0, 1), (..., C, H, W), from decoder output (..., *param_shape)."""
        return self.mean_logits(params).sigmoid()

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        self.scale.update_running_scale(target - self.location(params))

    def forward(self, params: Tensor) -> Distribution:
        scale = self.scale(params[..., self.image_shape[0] :, :, :])
        pixels = self.family(self.location(params), scale, validate_args=False)
        return Independent(pixels, 3, validate_args=False)

    def mean_logits(self, params: Tensor) -> Tensor:
        return params[..., : self.image_shape[0], :, :]


class Gaussian(LocationScale):
    """Gaussian noise: p(x | z) = N(x; m, s^2).

    With a fixed scale s, -log p(x | z) is the squared error over 2 s^2 plus a constant. A learned
    or optimal scale balances log-likelihood and KL without a tuned beta.

    Source: Rybkin et al. 2021, arXiv:2006.13202.
    """

    family = torch.distributions.Normal
    residual_power = 2

    @dataclass
    class Config(LocationScale.Config):
        name: str = "gaussian"


class Laplace(LocationScale):
    """Laplace noise: p(x | z) = exp(-|x - m| / s) / (2 s).

    -log p(x | z) is the absolute error over s plus log(2 s). The tails are heavier than Gaussian.
    """

    family = torch.distributions.Laplace
    residual_power = 1

    @dataclass
    class Config(LocationScale.Config):
        name: str = "laplace"
