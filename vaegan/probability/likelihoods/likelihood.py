"""Noise models p(x | z): what a decoder's output means.

A likelihood is a module whose forward turns the decoder's parameters into a distribution over images, normalized over
its support, so that `log_prob` is in nats per image. To add a noise model, write one class here: it is at once a choice
(`likelihood=NAME`) on the command line, in sweeps, in checkpoints and in the tests.

    name                            support            p(x | z), a product over pixels unless said
    bernoulli                       {0, 1}             m^x (1 - m)^(1 - x),  m = sigmoid(.)                    mass
    categorical                     {0, 1, ..., 255}   any 256 probabilities                                   mass
    discretized_logistic_mixture    {0, 1, ..., 255}   rounded logistics, coupled over the channels            mass
    continuous_bernoulli            [0, 1]             proportional to m^x (1 - m)^(1 - x)                     density
    gaussian                        R                  N(x; m, s^2),  m = sigmoid(.)                           density
    laplace                         R                  exp(-|x - m| / s) / 2s,  m = sigmoid(.)                 density
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.runtime.seeding import image_noise


class Likelihood(Component, nn.Module, abc.ABC, group="likelihood"):
    """p(x | z) as a function of what the decoder puts out."""

    support: ClassVar[Constraint]  # of one pixel; `support.is_discrete` tells a mass from a density
    static_seed: int | None = (
        None  # of noise that is always the same for an image; None: new noise at every use
    )

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> Likelihood:
            built: Likelihood = self.component(self, image_shape)
            return built

    def __init__(
        self, config: Any, image_shape: ImageShape, param_channels: int | None = None
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.param_shape = (
            param_channels or image_shape[0],
            *image_shape[1:],
        )  # the decoder's output for one image

    @property
    @abc.abstractmethod
    def bin_width(self) -> float | None:
        """What one level of an 8-bit pixel takes of the support: 1 for a mass, 1/256 for a dequantized density.

        None where `log_prob` says nothing of 8-bit pixels, and bits per dimension would be meaningless.
        """

    @abc.abstractmethod
    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        """Images in [0, 1], (B, C, H, W), mapped onto the support with uniform noise in [0, 1) of the same shape."""

    @abc.abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """Distribution over images.

        Args:
            params: Decoder output, (..., *param_shape).

        Returns:
            Batch shape (...,), event shape `image_shape`; `mean`, (..., C, H, W), lies in [0, 1].
        """

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        """Called with every training batch before it is scored, for likelihoods that keep statistics of it."""

    @property
    def is_discrete(self) -> bool:
        """Whether `log_prob` is the logarithm of a mass (at most 0), or of a density (which may be positive)."""
        return bool(self.support.is_discrete)

    def target(self, x: Tensor, seed: int | None = None) -> Tensor:
        """What this model explains of 8-bit images: binarized, dequantized, or as they are.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            seed: Makes binarization and dequantization a function of (seed, image). None draws anew from torch's global
                generator, unless the likelihood is static.
        """
        seed = seed if self.static_seed is None else self.static_seed
        return self.preprocess(x, torch.rand_like(x) if seed is None else image_noise(x, seed))

    def check(self, target: Tensor) -> None:
        """Raise a ValueError unless all pixels lie on the support."""
        outside = target[~self.support.check(target)]
        if len(outside):
            name = type(self).Config.name
            raise ValueError(
                f"likelihood={name} has the support {self.support}; got a pixel {outside[0].item():.4g}"
            )

    def bits_per_dim(self, log_prob: Tensor) -> Tensor | None:
        """Log-probabilities in nats per image, any shape, as bits per 8-bit pixel and channel; None: meaningless."""
        if self.bin_width is None:
            return None
        return -(log_prob / math.prod(self.image_shape) + math.log(self.bin_width)) / math.log(2)
