"""Penalties on the gradient of the discriminator D in its input, per image.

name     penalty                                   source
r1       |grad D(x)|^2 / 2 at real images x        Mescheder et al. 2018, arXiv:1801.04406
r2       |grad D(g)|^2 / 2 at fakes g              as r1
r1_r2    their sum                                 Huang et al. 2024, arXiv:2501.05441
wgan_gp  (|grad D| - 1)^2 between real and fake    Gulrajani et al. 2017, arXiv:1704.00028
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vaegan.config import Component, ComponentConfig, require
from vaegan.gan.losses import Critic
from vaegan.images import ImageShape


class GradientPenalty(Component, abc.ABC, group="gradient_penalty"):
    """Penalty on the discriminator's gradient in its input, in float32 also under autocast."""

    @dataclass
    class Config(ComponentConfig):
        """Settings of a penalty; `build(image_shape)` constructs it."""

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        self.config = config
        self.image_shape = image_shape

    @abc.abstractmethod
    def weight(self, step: int, progress: float) -> float:
        """Return the penalty's factor; at 0 it is not computed.

        Args:
            step: Discriminator step.
            progress: Fraction of the training, in [0, 1].
        """

    @abc.abstractmethod
    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Return the penalty of each image, (B,), unweighted.

        It is differentiable in the discriminator's parameters; no gradient reaches the generator.

        Args:
            critic: Images (B, C, H, W) to logits (B,), each from its own image only.
            real: Real images, (B, C, H, W).
            fake: Fake images, (B, C, H, W).
        """


class NoPenalty(GradientPenalty):
    """No penalty."""

    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "none"

    def weight(self, step: int, progress: float) -> float:
        return 0.0

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return real.new_zeros(len(real))


class LazyPenalty(GradientPenalty, abc.ABC):
    """Penalty computed at every `interval`-th step, and there weighted `interval` times as much.

    Its strength does not depend on the interval. The weight may fall by half a cosine.
    Source: Karras et al. 2020, arXiv:1912.04958, appendix B.
    """

    @dataclass
    class Config(GradientPenalty.Config):
        # weight, for images in [0, 1] (4 gamma for [-1, 1]); null: 0.05 for 28 x 28 gray pixels,
        # and proportional to their number: a sum over more pixels is smaller for the same logits
        gamma: float | None = None
        gamma_final: float = 1.0  # final weight, as a share of gamma; 1 keeps it constant
        interval: int = 16  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            is_valid = self.gamma is None or self.gamma >= 0
            require(is_valid, "gamma", "at least 0, or null", self.gamma)
            require(self.gamma_final >= 0, "gamma_final", "at least 0", self.gamma_final)
            require(self.interval >= 1, "interval", "at least 1", self.interval)

    def weight(self, step: int, progress: float) -> float:
        config = self.config
        if step % config.interval:
            return 0.0
        gamma = config.gamma
        if gamma is None:
            gamma = 0.05 * math.prod(self.image_shape) / 28**2
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        share = config.gamma_final + (1 - config.gamma_final) * decay
        return float(config.interval * gamma * share)


class R1(LazyPenalty):
    """Squared gradient at real images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1"

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(critic, real) / 2


class R2(LazyPenalty):
    """Squared gradient at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r2"

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(critic, fake) / 2


class R1R2(LazyPenalty):
    """Squared gradients at real and at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1_r2"

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return (squared_gradient(critic, real) + squared_gradient(critic, fake)) / 2


class WganGP(LazyPenalty):
    """Distance of the gradient's norm from 1, at random points between real and fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "wgan_gp"
        gamma: float | None = 10.0  # weight
        interval: int = 1  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = "a number: this penalty is the same at every size"
            require(self.gamma is not None, "gamma", expected, self.gamma)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(fake.float(), real.float(), share)
        norm = (squared_gradient(critic, between) + 1e-12).sqrt()  # a root's slope at 0 is infinite
        return (norm - 1).square()


def squared_gradient(critic: Critic, images: Tensor) -> Tensor:
    """Return |grad D|^2 of each image, (B,), summed over its pixels, in float32."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        logits = critic(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(1)
