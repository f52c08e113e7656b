"""Base class of the likelihoods p(x | z).

A likelihood says which data it explains (`target`: binarized, dequantized or unchanged images) and
with which distribution (`forward`). The package docstring lists all of them.
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
    """Likelihood p(x | z).

    Args:
        config: Settings.
        image_shape: (C, H, W).
        param_channels: Channels of the decoder's output; default C.

    Attributes:
        support: Values of one pixel.
        param_shape: Shape of the decoder's output for one image.
        bin_width: Width of one 8-bit level on the support: 1 for a mass, 1/256 for a dequantized
            density, None if `log_prob` does not describe 8-bit pixels.
        static_seed: Seed of noise that never changes for an image; None draws new noise each time.
    """

    support: ClassVar[Constraint]
    bin_width: float | None = None
    static_seed: int | None = None

    @dataclass
    class Config(ComponentConfig):
        """Settings of a likelihood; `build(image_shape)` constructs it."""

    def __init__(
        self, config: Any, image_shape: ImageShape, param_channels: int | None = None
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.image_shape = image_shape
        self.param_shape = (param_channels or channels, height, width)

    @abc.abstractmethod
    def preprocess(self, x: Tensor, noise: Tensor) -> Tensor:
        """Map images onto the support as a deterministic function of the noise.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            noise: Uniform in [0, 1), same shape.
        """

    @abc.abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """Return p(x | z).

        Args:
            params: Decoder output, (..., *param_shape).

        Returns:
            Batch shape (...,), event shape `image_shape`; `mean`, (..., C, H, W), lies in [0, 1].
        """

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        """Update statistics from a training batch, before it is scored."""

    @property
    def is_discrete(self) -> bool:
        """True if `log_prob` is the logarithm of a mass, False if of a density."""
        return self.support.is_discrete

    def target(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Return the data that this model explains: `preprocess` with noise drawn here.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            seed: Makes the noise a function of (seed, image). None draws new noise from torch's
                global generator, unless the likelihood has a `static_seed`, which always wins.

        Returns:
            Values on the support, (B, C, H, W).
        """
        if self.static_seed is not None:
            seed = self.static_seed
        noise = torch.rand_like(x) if seed is None else image_noise(x, seed)
        return self.preprocess(x, noise)

    def check(self, target: Tensor) -> None:
        """Raise a ValueError unless all pixels lie on the support."""
        outside = target[~self.support.check(target)]
        if len(outside):
            raise ValueError(
                f"likelihood={self.Config.name} has the support {self.support}; "
                f"got a pixel {outside[0].item():.4g}"
            )

    def bits_per_dim(self, log_prob: Tensor) -> Tensor | None:
        """Convert nats per image, any shape, to bits per 8-bit pixel and channel.

        Returns None if `log_prob` does not describe 8-bit pixels.
        """
        if self.bin_width is None:
            return None
        nats_per_dim = log_prob / math.prod(self.image_shape) + math.log(self.bin_width)
        return -nats_per_dim / math.log(2)
