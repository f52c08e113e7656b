"""Bernoulli and continuous Bernoulli likelihoods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from vaegan.images import ImageShape
from vaegan.probability import distributions
from vaegan.probability.likelihoods.density import Density
from vaegan.probability.likelihoods.likelihood import Likelihood


class Bernoulli(Likelihood):
    """Bernoulli noise on binarized pixels: p(x | z) = m^x (1 - m)^(1 - x), m = sigmoid(params).

    `target` binarizes each pixel at random with its gray value as the probability of 1, by default
    with new noise in each call ("dynamic binarization").

    Source: Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks".

    Raises:
        ValueError: On construction, if the images have more than one channel.
    """

    support = constraints.boolean
    preprocessing = "binarize at random: 1 with a probability equal to the pixel value"

    @dataclass
    class Config(Likelihood.Config):
        name: str = "bernoulli"
        # random seed that fixes the binarization of each image; null: draw new noise each time an
        # image is used
        static_seed: int | None = None

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        if image_shape[0] != 1:
            raise ValueError(
                f"likelihood=bernoulli requires 1-channel images; got {image_shape[0]}. Choose "
                "another likelihood, such as gaussian or discretized_logistic_mixture"
            )
        self.static_seed = config.static_seed

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < x).to(x.dtype)

    def forward(self, params: Tensor) -> Distribution:
        pixels = torch.distributions.Bernoulli(logits=params, validate_args=False)
        return Independent(pixels, 3, validate_args=False)

    def mean_logits(self, params: Tensor) -> Tensor:
        return params


class ContinuousBernoulli(Density):
    """Continuous Bernoulli noise: p(x | z) = c(m) m^x (1 - m)^(1 - x), m = sigmoid(params).

    This is the binary cross-entropy of gray pixels plus log c(m), without which it is not a
    log-density.

    Source: Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845.
    """

    support = constraints.unit_interval

    @dataclass
    class Config(Density.Config):
        name: str = "continuous_bernoulli"

    def forward(self, params: Tensor) -> Distribution:
        return distributions.ContinuousBernoulli(params)
