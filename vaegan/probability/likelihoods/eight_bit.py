"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

import vaegan.probability.distributions as distributions
from vaegan.config import require
from vaegan.images import ImageShape
from vaegan.probability.distributions import NUM_LEVELS
from vaegan.probability.likelihoods.likelihood import Likelihood


class EightBit(Likelihood, abc.ABC):
    """A mass over the 256 levels of each pixel."""

    support = distributions.eight_bit

    @property
    def bin_width(self) -> float:
        return 1.0

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x * (NUM_LEVELS - 1)).round() / (NUM_LEVELS - 1)


class Categorical(EightBit):
    """256 free probabilities for each pixel and channel. Source: van den Oord et al. 2016, arXiv:1601.06759."""

    @dataclass
    class Config(EightBit.Config):
        name: str = "categorical"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape, NUM_LEVELS * image_shape[0])

    def forward(self, params: Tensor) -> Distribution:
        return distributions.EightBitCategorical(
            params.unflatten(-3, (NUM_LEVELS, self.image_shape[0]))
        )


class DiscretizedLogisticMixture(EightBit):
    """Rounded logistic distributions; with one component, the plain discretized logistic.

    Source: Kingma et al. 2016, arXiv:1606.04934 (one component); Salimans et al. 2017, arXiv:1701.05517.
    """

    @dataclass
    class Config(EightBit.Config):
        name: str = "discretized_logistic_mixture"
        num_components: int = 5  # logistic distributions of each pixel
        min_scale: float = 5e-4  # image units, an eighth of a level: sharper masses would be all on one level anyhow

        def __post_init__(self) -> None:
            super().__post_init__()
            for key in ("num_components", "min_scale"):
                require(getattr(self, key) > 0, key, "positive", getattr(self, key))

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        channels = image_shape[0]
        sizes = [
            1,
            channels,
            channels,
            channels * (channels - 1) // 2,
        ]  # of each component, per pixel
        super().__init__(config, image_shape, config.num_components * sum(sizes))
        self.sizes, self.num_components, self.min_scale = (
            sizes,
            config.num_components,
            config.min_scale,
        )
        spread = torch.linspace(-1, 1, config.num_components + 2)[
            1:-1
        ]  # the components must differ at the start
        self.register_buffer("spread", spread.view(-1, 1, 1, 1), persistent=False)

    def forward(self, params: Tensor) -> Distribution:
        params = params.unflatten(-3, (self.num_components, -1))
        logits, locations, raw_scales, coefficients = params.split(self.sizes, -3)
        scales = self.min_scale + 0.1 * nn.functional.softplus(raw_scales + 1)
        return distributions.DiscretizedLogisticMixture(
            logits.squeeze(-3), 0.5 + 0.5 * (locations + self.spread), scales, coefficients.tanh()
        )
