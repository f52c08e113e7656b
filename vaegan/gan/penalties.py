"""PLACEHOLDER DOCSTRING."""

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
    """Penalty on the discriminator's gradient in its input, in float32 also under autocast.

    It is lazy: computed at every `interval`-th discriminator step, and there `interval` times as heavy, so that its
    strength does not depend on the interval. Source: Karras et al. 2020, arXiv:1912.04958, appendix B.
    """

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> GradientPenalty:
            built: GradientPenalty = self.component(self, image_shape)
            return built

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        self.config, self.image_shape = config, image_shape

    @abc.abstractmethod
    def weight(self, step: int, progress: float) -> float:
        """Factor of the penalty at a discriminator step, at a share of the training; 0: it need not be computed."""

    @abc.abstractmethod
    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of each image, (B,), unweighted, differentiable in the discriminator's parameters.

        Args:
            discriminator: Images (B, C, H, W) to logits (B,), each from its own image only.
            real: Real images, (B, C, H, W).
            fake: Fake images, likewise; no gradient reaches the generator.
        """


class NoPenalty(GradientPenalty):
    """The discriminator is left alone."""

    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "none"

    def weight(self, step: int, progress: float) -> float:
        return 0.0

    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return real.new_zeros(len(real))


class LazyPenalty(GradientPenalty, abc.ABC):
    """With a weight that may fall by half a cosine."""

    @dataclass
    class Config(GradientPenalty.Config):
        gamma: float | None = (
            None  # weight, for images in [0, 1] (4 gamma for [-1, 1]); null: 0.05 for 28 x 28 gray
        )
        # pixels, and in proportion to their number: a sum of squares over more pixels is smaller for the same logits
        gamma_final: float = 1.0  # the last weight, as a share of gamma; 1 keeps it constant
        interval: int = 16  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            require(
                self.gamma is None or self.gamma >= 0, "gamma", "at least 0, or null", self.gamma
            )
            require(self.gamma_final >= 0, "gamma_final", "at least 0", self.gamma_final)
            require(self.interval >= 1, "interval", "at least 1", self.interval)

    def weight(self, step: int, progress: float) -> float:
        config = self.config
        if step % config.interval:
            return 0.0
        gamma = 0.05 * math.prod(self.image_shape) / 28**2 if config.gamma is None else config.gamma
        share = config.gamma_final + (1 - config.gamma_final) * 0.5 * (
            1 + math.cos(math.pi * min(1.0, progress))
        )
        return float(config.interval * gamma * share)


class R1(LazyPenalty):
    """Gradient at real images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1"

    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, real) / 2


class R2(LazyPenalty):
    """Gradient at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r2"

    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, fake) / 2


class R1R2(LazyPenalty):
    """Gradients at real and at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1_r2"

    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return (squared_gradient(discriminator, real) + squared_gradient(discriminator, fake)) / 2


class WganGP(LazyPenalty):
    """Draws the gradient's norm to 1, at random places between real and fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "wgan_gp"
        gamma: float | None = 10.0  # weight
        interval: int = 1  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            require(
                self.gamma is not None,
                "gamma",
                "a number: this penalty is the same at every size",
                self.gamma,
            )

    def __call__(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(fake.float(), real.float(), share)
        norm = (
            squared_gradient(discriminator, between) + 1e-12
        ).sqrt()  # a root's slope at 0 is infinite
        return (norm - 1).square()


def squared_gradient(discriminator: Critic, images: Tensor) -> Tensor:
    """|grad D|^2 of each image, (B,), summed over its pixels; in float32 also under autocast."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        logits = discriminator(images)
        gradient: Tensor
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(1)
