"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch import distributions as torch_distributions
from torch.distributions import Distribution, Independent

from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.probability.likelihoods.density import Density
from vaegan.probability.noise_scales import KINDS, build_scale


class LocationScale(Density, abc.ABC):
    """Real pixels around a location in (0, 1), with noise of one of the scales in scales.py."""

    POWER: ClassVar[int]  # p of the norm of residuals that the optimal scale follows
    FAMILY: ClassVar[Callable[..., Distribution]]

    @dataclass
    class Config(Density.Config):
        scale: int | float | str = (
            "learned"  # learned, per_channel, per_pixel, optimal, or a number in image units
        )
        initial_scale: float = 0.2  # image units; where the scale starts
        min_scale: float = 1e-3  # image units, a quarter of a level; keeps the density finite

        def __post_init__(self) -> None:
            super().__post_init__()
            fits = self.scale in KINDS if isinstance(self.scale, str) else self.scale > 0
            require(fits, "scale", f"a positive number, or one of {', '.join(KINDS)}", self.scale)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)
            expected = f"larger than min_scale={self.min_scale}"
            require(
                self.initial_scale > self.min_scale, "initial_scale", expected, self.initial_scale
            )

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        scale = build_scale(
            config.scale, image_shape[0], self.POWER, config.initial_scale, config.min_scale
        )
        super().__init__(config, image_shape, image_shape[0] * (1 + scale.params_per_channel))
        self.scale = scale

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        self.scale.update_running_scale(target - params[..., : self.image_shape[0], :, :].sigmoid())

    def forward(self, params: Tensor) -> Distribution:
        channels = self.image_shape[0]
        location, raw_scale = params[..., :channels, :, :].sigmoid(), params[..., channels:, :, :]
        return Independent(
            self.FAMILY(location, self.scale(raw_scale), validate_args=False),
            3,
            validate_args=False,
        )


class Gaussian(LocationScale):
    """Normal noise. A fixed scale s is the classical VAE: up to a constant, the squared error over 2 s^2.

    A learned or optimal scale finds the weight between the ELBO's two terms by itself. Source: Rybkin et al. 2021,
    arXiv:2006.13202.
    """

    POWER = 2
    FAMILY = torch_distributions.Normal

    @dataclass
    class Config(LocationScale.Config):
        name: str = "gaussian"


class Laplace(LocationScale):
    """Noise with heavier tails: the absolute error over the scale, up to a constant."""

    POWER = 1
    FAMILY = torch_distributions.Laplace

    @dataclass
    class Config(LocationScale.Config):
        name: str = "laplace"
