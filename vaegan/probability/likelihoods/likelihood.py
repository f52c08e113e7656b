"""Base class of the likelihoods p(x | z).

A likelihood defines the data that it models (`target`: binarized, dequantized or unchanged images)
and their distribution (`forward`). The docstring of the package lists all likelihoods.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.probability.leaky_sigmoid import leaky_sigmoid
from vaegan.runtime.seeding import image_noise, uniform_noise


class Likelihood(Component, nn.Module, abc.ABC, group="likelihood"):
    """Likelihood p(x | z): noise model of an image x given its latents z.

    Args:
        config: Settings.
        image_shape: (C, H, W).
        param_channels: Channels of the decoder's output; C if None.

    Attributes:
        support: Constraint on the values of one pixel.
        param_shape: Shape of the decoder's output for one image, (param_channels, H, W).
        bin_width: Width of one 8-bit level on the support: 1 for a mass, 1/256 for a dequantized
            density, None if `log_prob` is not a likelihood of 8-bit images.
        static_seed: Random seed that fixes the noise of each image. None: new noise at every use.
    """

    support: ClassVar[Constraint]
    preprocessing: str = "none"  # description of `preprocess`, for the metadata of exports
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
            noise: Uniform noise in [0, 1), (B, C, H, W).

        Returns:
            Values on the support, (B, C, H, W).
        """

    @abc.abstractmethod
    def forward(self, params: Tensor) -> Distribution:
        """Return p(x | z).

        Args:
            params: Decoder output, (..., *param_shape).

        Returns:
            Distribution with batch shape (...) and event shape (C, H, W), whose `mean` is in [0, 1]
            and whose `log_prob` is in nats per image.
        """

    def mean_logits(self, params: Tensor) -> Tensor | None:
        """Return the logits of the mean, (..., C, H, W), if the mean is their sigmoid.

        Args:
            params: Decoder output, (..., *param_shape).
        """
        return None

    def image(self, params: Tensor, saturation_logit: float = 0.0) -> Tensor:
        """Return the mean of p(x | z), the image that a GAN's generator makes.

        Args:
            params: Decoder output, (..., *param_shape).
            saturation_logit: `bound` of `leaky_sigmoid`, if the mean is a sigmoid.

        Returns:
            Images in [0, 1], (..., C, H, W).
        """
        logits = self.mean_logits(params)
        return self(params).mean if logits is None else leaky_sigmoid(logits, saturation_logit)

    def update_running_scale(self, params: Tensor, target: Tensor) -> None:
        """Update the running statistics of the noise scale. Called on each training batch.

        Args:
            params: Decoder output, (..., *param_shape).
            target: Values on the support, (B, C, H, W).
        """

    @property
    def is_discrete(self) -> bool:
        """True if `log_prob` is a log-mass, False if it is a log-density."""
        return self.support.is_discrete

    def target(self, x: Tensor, seed: int | None = None) -> Tensor:
        """Draw noise and return the data that the likelihood models: `preprocess(x, noise)`.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            seed: Random seed that makes the noise a function of (seed, image). None: new noise from
                torch's global generator. `static_seed`, if set, takes precedence.

        Returns:
            Values on the support, (B, C, H, W).
        """
        if self.static_seed is not None:
            seed = self.static_seed
        noise = uniform_noise(x) if seed is None else image_noise(x, seed)
        return self.preprocess(x, noise)

    def check(self, target: Tensor) -> None:
        """Check that all pixels lie on the support.

        Raises:
            ValueError: A pixel lies outside the support.
        """
        outside = target[~self.support.check(target)]
        if len(outside):
            raise ValueError(
                f"likelihood={self.Config.name} has the support {self.support}; "
                f"got a pixel of {outside[0].item():.4g}. Images must be in [0, 1], and preprocess "
                "must map them onto the support"
            )

    def bits_per_dim(self, log_prob: Tensor) -> Tensor | None:
        """Convert log-likelihoods to bits per dimension (8-bit pixel and channel).

        With D = C H W: bits = -(log_prob / D + log bin_width) / log 2.

        Args:
            log_prob: Nats per image, any shape.

        Returns:
            Bits per dimension, same shape. None if `bin_width` is None.
        """
        if self.bin_width is None:
            return None
        nats_per_dim = log_prob / math.prod(self.image_shape) + math.log(self.bin_width)
        return -nats_per_dim / math.log(2)
