"""Likelihoods that are masses over the 256 levels of 8-bit pixels."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import softplus

from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.probability import distributions
from vaegan.probability.distributions import NUM_LEVELS
from vaegan.probability.likelihoods.likelihood import Likelihood


class EightBit(Likelihood, abc.ABC):
    """Mass over the 256 levels of each pixel."""

    support = distributions.eight_bit
    bin_width = 1.0

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1)).round() / (NUM_LEVELS - 1)


class Categorical(EightBit):
    """256 free probabilities for each pixel and channel.

    Source: van den Oord et al. 2016, arXiv:1601.06759.
    """

    @dataclass
    class Config(EightBit.Config):
        name: str = "categorical"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape, NUM_LEVELS * image_shape[0])

    def forward(self, params: Tensor) -> Distribution:
        logits = params.unflatten(-3, (NUM_LEVELS, self.image_shape[0]))
        return distributions.EightBitCategorical(logits)


class DiscretizedLogisticMixture(EightBit):
    """Mixture of rounded logistic distributions; one component is the discretized logistic.

    Source: Kingma et al. 2016, arXiv:1606.04934 (one component); Salimans et al. 2017,
    arXiv:1701.05517.
    """

    @dataclass
    class Config(EightBit.Config):
        name: str = "discretized_logistic_mixture"
        num_components: int = 5  # logistic distributions of each pixel
        # image units, an eighth of a level; narrower masses would lie on one level anyway
        min_scale: float = 5e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_components > 0, "num_components", "positive", self.num_components)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)

    spread: Tensor

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        channels = image_shape[0]
        num_coefficients = channels * (channels - 1) // 2
        # of each component and pixel: logit, locations, scales, coefficients
        param_sizes = [1, channels, channels, num_coefficients]
        super().__init__(config, image_shape, config.num_components * sum(param_sizes))
        self.param_sizes = param_sizes
        self.num_components = config.num_components
        self.min_scale = config.min_scale
        # initial locations, which must differ, evenly spaced in (-1, 1)
        spread = torch.linspace(-1, 1, config.num_components + 2)[1:-1]
        self.register_buffer("spread", spread.view(-1, 1, 1, 1), persistent=False)

    def forward(self, params: Tensor) -> Distribution:
        params = params.unflatten(-3, (self.num_components, -1))
        logits, raw_locations, raw_scales, coefficients = params.split(self.param_sizes, -3)
        locations = 0.5 + 0.5 * (raw_locations + self.spread)  # from [-1, 1] to image units
        scales = self.min_scale + 0.1 * softplus(raw_scales + 1)  # 0.13 for a raw scale of 0
        return distributions.DiscretizedLogisticMixture(
            logits.squeeze(-3), locations, scales, coefficients.tanh()
        )
