"""Noise models p(x | z): what a decoder's output means.

A likelihood is a module whose forward turns the decoder's parameters into a distribution over images, normalised over
its stated support, so that `log_prob` is in nats per image. To add a noise model, write one class here: it is at once
a choice (`likelihood=NAME`) on the command line, in sweeps, in checkpoints and in the tests.

    name        support             p(x | z)
    bernoulli   {0, 1}^(C H W)      prod_i m_i^x_i (1 - m_i)^(1 - x_i),   m = sigmoid(params)       a mass
    gaussian    R^(C H W)           prod_i N(x_i; m_i, s^2),              m = sigmoid(params)       a density
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent, Normal

from vaegan.config import Component, ComponentConfig, require
from vaegan.images import ImageShape


class Likelihood(Component, nn.Module, abc.ABC, group="likelihood"):
    """p(x | z) as a function of what the decoder puts out."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> Likelihood:
            built: Likelihood = self.component(self, image_shape)
            return built

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        super().__init__()
        self.image_shape = image_shape

    @property
    @abc.abstractmethod
    def param_shape(self) -> ImageShape:
        """Shape of the decoder's output for one image."""

    @property
    @abc.abstractmethod
    def is_discrete(self) -> bool:
        """Whether `log_prob` is the logarithm of a mass (at most 0), or of a density (which may be positive)."""

    @abc.abstractmethod
    def target(self, x: Tensor) -> Tensor:
        """Images in [0, 1], (B, C, H, W), mapped onto the support; may draw from torch's global generator."""

    @abc.abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """Distribution over images.

        Args:
            params: Decoder output, (B, *param_shape).

        Returns:
            Batch shape (B,), event shape `image_shape`; `mean`, (B, C, H, W), lies in [0, 1].
        """


class Bernoulli(Likelihood):
    """Binary pixels. Grey images are binarized anew at every use, each pixel white with its grey value as probability.

    Source: dynamic binarization as in Burda et al. 2016, arXiv:1509.00519, and Salakhutdinov & Murray 2008.
    """

    @dataclass
    class Config(Likelihood.Config):
        name: str = "bernoulli"

    @property
    def param_shape(self) -> ImageShape:
        return self.image_shape

    @property
    def is_discrete(self) -> bool:
        return True

    def target(self, x: Tensor) -> Tensor:
        return torch.bernoulli(x)

    def forward(self, params: Tensor) -> Distribution:
        return Independent(BernoulliDistribution(logits=params, validate_args=False), 3, validate_args=False)


class Gaussian(Likelihood):
    """Real pixels with one noise scale for all of them, learned with the decoder or fixed.

    A fixed scale s is the classical VAE: up to a constant, the squared error over 2 s^2. A learned one finds the
    weight between the ELBO's two terms by itself. Source: Rybkin et al. 2021, arXiv:2006.13202.
    """

    @dataclass
    class Config(Likelihood.Config):
        name: str = "gaussian"
        scale: float | None = None  # noise scale in image units; null learns one
        initial_scale: float = 0.2  # image units; where a learned scale starts
        min_scale: float = 1e-3  # image units; keeps the density finite on constant images

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.scale is None or self.scale > 0, "scale", "positive, or null to learn it", self.scale)
            require(self.min_scale > 0, "min_scale", "positive", self.min_scale)
            require(
                self.initial_scale > self.min_scale,
                "initial_scale",
                f"larger than min_scale={self.min_scale}",
                self.initial_scale,
            )

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        self.fixed_scale, self.min_scale = config.scale, config.min_scale
        if config.scale is None:
            self.log_excess = nn.Parameter(torch.tensor(math.log(config.initial_scale - config.min_scale)))

    @property
    def param_shape(self) -> ImageShape:
        return self.image_shape

    @property
    def is_discrete(self) -> bool:
        return False

    @property
    def scale(self) -> Tensor | float:
        """Standard deviation of the noise, in image units."""
        return self.min_scale + self.log_excess.exp() if self.fixed_scale is None else self.fixed_scale

    def target(self, x: Tensor) -> Tensor:
        return x

    def forward(self, params: Tensor) -> Distribution:
        return Independent(Normal(params.sigmoid(), self.scale, validate_args=False), 3, validate_args=False)
