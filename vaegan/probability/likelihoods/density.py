"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

import vaegan.probability.distributions as distributions
from vaegan.images import ImageShape
from vaegan.probability.distributions import NUM_LEVELS
from vaegan.probability.likelihoods.likelihood import Likelihood


class Density(Likelihood, abc.ABC):
    """A density. By default the 8-bit images are dequantized: x = (level + noise) / 256, noise uniform in [0, 1).

    Without that, a density can grow without bound on constant pixels, and says nothing about the 8-bit images.
    Source: Theis et al. 2016, arXiv:1511.01844, section 3.1.
    """

    support: ClassVar[Constraint] = constraints.real

    @dataclass
    class Config(Likelihood.Config):
        dequantize: bool = True  # false scores the gray values as they are; bits per dimension are then not defined

    def __init__(
        self, config: Any, image_shape: ImageShape, param_channels: int | None = None
    ) -> None:
        super().__init__(config, image_shape, param_channels)
        self.dequantize = config.dequantize

    @property
    def bin_width(self) -> float | None:
        return 1 / NUM_LEVELS if self.dequantize else None

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1) + noise) / NUM_LEVELS if self.dequantize else x


class ContinuousBernoulli(Density):
    """Gray pixels: binary cross-entropy with the normalizer that it lacks there. Source: arXiv:1907.06845."""

    support = constraints.unit_interval

    @dataclass
    class Config(Density.Config):
        name: str = "continuous_bernoulli"

    def forward(self, params: Tensor) -> Distribution:
        return distributions.ContinuousBernoulli(params)
