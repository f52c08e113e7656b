"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch import distributions as torch_distributions
from torch.distributions import Distribution, Independent, constraints

from vaegan.images import ImageShape
from vaegan.probability.likelihoods.likelihood import Likelihood

INSTEAD = "choose likelihood=gaussian, discretized_logistic_mixture or another one"


class Bernoulli(Likelihood):
    """Binary pixels: each is white with its gray value as probability, by default drawn anew at every use.

    Raises a ValueError on construction if the images have color. Source: Salakhutdinov & Murray 2008.
    """

    support = constraints.boolean

    @dataclass
    class Config(Likelihood.Config):
        name: str = "bernoulli"
        static_seed: int | None = (
            None  # binarizes each image always in one way, f(seed, image); null: anew each time
        )

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        if image_shape[0] != 1:
            raise ValueError(
                f"likelihood=bernoulli wants gray images, got {image_shape[0]} channels; {INSTEAD}"
            )
        self.static_seed = config.static_seed

    @property
    def bin_width(self) -> None:
        return None

    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        return (noise < x).to(x.dtype)

    def forward(self, params: Tensor) -> Distribution:
        return Independent(
            torch_distributions.Bernoulli(logits=params, validate_args=False),
            3,
            validate_args=False,
        )
