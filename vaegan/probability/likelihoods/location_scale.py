"""Likelihoods with a location and a scale: Gaussian and Laplace noise."""

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
    """Real pixels around a location in (0, 1), with one of the scales of `noise_scales`."""

    family: ClassVar[Callable[..., Distribution]]
    residual_power: ClassVar[int]  # p: the optimal scale is (mean |residual|^p)^(1/p)

    @dataclass
    class Config(Density.Config):
        # learned, per_channel, per_pixel, optimal, or a number in image units
        scale: int | float | str = "learned"
        initial_scale: float = 0.2  # image units; scale before training
        min_scale: float = 1e-3  # image units, a quarter of a level; keeps the density finite

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
        """Location in (0, 1), (..., C, H, W), of decoder output (..., *param_shape)."""
        return params[..., : self.image_shape[0], :, :].sigmoid()

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        self.scale.update_running_scale(target - self.location(params))

    def forward(self, params: Tensor) -> Distribution:
        scale = self.scale(params[..., self.image_shape[0] :, :, :])
        pixels = self.family(self.location(params), scale, validate_args=False)
        return Independent(pixels, 3, validate_args=False)


class Gaussian(LocationScale):
    """Normal noise. With a fixed scale s, it scores the squared error over 2 s^2, up to a constant.

    A learned or optimal scale balances the ELBO's two terms by itself. Source: Rybkin et al. 2021,
    arXiv:2006.13202.
    """

    family = torch.distributions.Normal
    residual_power = 2

    @dataclass
    class Config(LocationScale.Config):
        name: str = "gaussian"


class Laplace(LocationScale):
    """Noise with heavier tails: scores the absolute error over the scale, up to a constant."""

    family = torch.distributions.Laplace
    residual_power = 1

    @dataclass
    class Config(LocationScale.Config):
        name: str = "laplace"
