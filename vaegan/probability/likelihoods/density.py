"""Base class of the likelihoods that are densities."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

from vaegan.images import ImageShape
from vaegan.probability.distributions import NUM_LEVELS
from vaegan.probability.likelihoods.likelihood import Likelihood


class Density(Likelihood, abc.ABC):
    """Density of dequantized images: target = (255 x + noise) / 256, noise uniform in [0, 1).

    By Jensen's inequality, E[log p(target)] - log 256 per pixel and channel is a lower bound on the
    log-mass of the 8-bit image. Without dequantization a density can grow without bound on constant
    pixels, and it does not define a likelihood of 8-bit images.

    Source: Theis et al. 2016, arXiv:1511.01844, section 3.1.
    """

    support: ClassVar[Constraint] = constraints.real

    @dataclass
    class Config(Likelihood.Config):
        # true: add uniform noise as wide as one 8-bit level to each pixel; false: score the pixel
        # values unchanged, which leaves bits per dimension undefined
        dequantize: bool = True

    def __init__(
        self, config: Any, image_shape: ImageShape, param_channels: int | None = None
    ) -> None:
        super().__init__(config, image_shape, param_channels)
        self.dequantize = config.dequantize
        if config.dequantize:
            self.bin_width = 1 / NUM_LEVELS
            self.preprocessing = "dequantize: (255 x + u) / 256, u uniform in [0, 1)"

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        if not self.dequantize:
            return x
        return (x * (NUM_LEVELS - 1) + noise) / NUM_LEVELS
