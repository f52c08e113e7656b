"""Likelihoods that are probability masses over the 256 levels of 8-bit pixels."""

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
    """Probability mass over the 256 levels of each pixel and channel."""

    support = distributions.eight_bit
    preprocessing = "round to the nearest multiple of 1/255"
    bin_width = 1.0

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1)).round() / (NUM_LEVELS - 1)


class Categorical(EightBit):
    """Categorical noise: 256 free probabilities (softmax) for each pixel and channel.

    Decoder output: the logits, 256 C channels.

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
    """Mixture of K logistic distributions per pixel, rounded to the 256 levels.

    num_components=1 gives the discretized logistic. Decoder output for each component: one logit,
    C locations, C scales and C (C - 1) / 2 coefficients between channels, all unconstrained.

    Source: Kingma et al. 2016, arXiv:1606.04934 (one component); Salimans et al. 2017,
    arXiv:1701.05517, eq. 2 and 3 (mixture).
    """

    @dataclass
    class Config(EightBit.Config):
        name: str = "discretized_logistic_mixture"
        num_components: int = 5  # logistic distributions K in the mixture of each pixel, >= 1
        # smallest scale of a logistic, in image units, > 0; the default is an eighth of a level,
        # below which nearly all mass lies on one level
        min_scale: float = 5e-4

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_components > 0, "num_components", "positive", self.num_components)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)

    spread: Tensor

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        channels = image_shape[0]
        num_coefficients = channels * (channels - 1) // 2
        # decoder channels of each component: logit, locations, scales, coefficients
        param_sizes = [1, channels, channels, num_coefficients]
        super().__init__(config, image_shape, config.num_components * sum(param_sizes))
        self.param_sizes = param_sizes
        self.num_components = config.num_components
        self.min_scale = config.min_scale
        # initial locations, evenly spaced in (-1, 1): equal components would get equal gradients
        spread = torch.linspace(-1, 1, config.num_components + 2)[1:-1]
        self.register_buffer("spread", spread.view(-1, 1, 1, 1), persistent=False)

    def forward(self, params: Tensor) -> Distribution:
        params = params.unflatten(-3, (self.num_components, -1))
        logits, raw_locations, raw_scales, coefficients = params.split(self.param_sizes, -3)
        locations = 0.5 + 0.5 * (raw_locations + self.spread)  # from [-1, 1] to image units
        scales = self.min_scale + 0.1 * softplus(raw_scales + 1)  # a raw scale of 0 gives 0.13
        return distributions.DiscretizedLogisticMixture(
            logits.squeeze(-3), locations, scales, coefficients.tanh()
        )
