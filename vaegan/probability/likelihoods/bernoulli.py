"""Likelihoods that score gray values as probabilities of white."""

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
    """Binary pixels. Each is white with its gray value as probability, drawn again at every use.

    Source: Salakhutdinov & Murray 2008.

    Raises:
        ValueError: On construction, if the images have several channels.
    """

    support = constraints.boolean

    @dataclass
    class Config(Likelihood.Config):
        name: str = "bernoulli"
        # binarizes each image in one fixed way, f(seed, image); null: draws again at every use
        static_seed: int | None = None

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        if image_shape[0] != 1:
            raise ValueError(
                f"likelihood=bernoulli requires 1-channel images; got {image_shape[0]}; choose "
                "likelihood=gaussian, discretized_logistic_mixture or another one"
            )
        self.static_seed = config.static_seed

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < x).to(x.dtype)

    def forward(self, params: Tensor) -> Distribution:
        pixels = torch.distributions.Bernoulli(logits=params, validate_args=False)
        return Independent(pixels, 3, validate_args=False)


class ContinuousBernoulli(Density):
    """Gray pixels: binary cross-entropy with the normalizer that it lacks as a density.

    Source: Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845.
    """

    support = constraints.unit_interval

    @dataclass
    class Config(Density.Config):
        name: str = "continuous_bernoulli"

    def forward(self, params: Tensor) -> Distribution:
        return distributions.ContinuousBernoulli(params)
