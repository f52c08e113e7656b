"""Adversarial losses and gradient penalties: pure functions of logits and of discriminators.

D is trained towards positive logits for real images, negative ones for fakes. With s = softplus:

    non_saturating   D: s(-D(x)) + s(D(g))      G: s(-D(g))             Goodfellow et al. 2014, arXiv:1406.2661
    relativistic     D: s(D(g) - D(x))          G: s(D(x) - D(g))       Jolicoeur-Martineau 2019, arXiv:1807.00734
    r1               gamma / 2 |grad D(x)|^2 on real images             Mescheder et al. 2018, arXiv:1801.04406
    r1_r2            r1, and the same on fakes                          Huang et al. 2024, arXiv:2501.05441
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from vaegan.config import Component, ComponentConfig, require


class AdversarialLoss(Component, abc.ABC, group="adversarial_loss"):
    """What the two players minimise, per image, from logits (B,)."""

    PAIRED: ClassVar[bool] = False  # whether the generator's loss reads the logits of real images

    @dataclass
    class Config(ComponentConfig):
        def build(self) -> AdversarialLoss:
            built: AdversarialLoss = self.component()
            return built

    @abc.abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, (B,), from logits of real and fake images, (B,) each."""

    @abc.abstractmethod
    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Loss of the generator, (B,), from logits of fake and real images, (B,) each.

        The real ones are zeros unless the class is `PAIRED`.
        """


class NonSaturating(AdversarialLoss):
    """Each image is judged by itself."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "non_saturating"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(-fake)


class Relativistic(AdversarialLoss):
    """Each fake is judged against a real image: only the difference of the logits counts."""

    PAIRED: ClassVar[bool] = True

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "relativistic"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake)


class GradientPenalty(Component, abc.ABC, group="gradient_penalty"):
    """Penalty on the discriminator's input gradient.

    It is lazy: computed at every `interval`-th discriminator step, times `interval`, so that its strength does not
    depend on the interval. Source: Karras et al. 2020, arXiv:1912.04958, appendix B.
    """

    @dataclass
    class Config(ComponentConfig):
        gamma: float = 0.05  # weight, for images in [0, 1]; the same as 4 gamma for images in [-1, 1]
        interval: int = 16  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.gamma >= 0, "gamma", "at least 0", self.gamma)
            require(self.interval >= 1, "interval", "at least 1", self.interval)

        def build(self) -> GradientPenalty:
            built: GradientPenalty = self.component(self)
            return built

    def __init__(self, config: Any) -> None:
        self.gamma: float = config.gamma
        self.interval: int = config.interval

    @abc.abstractmethod
    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of each image, (B,), differentiable in the discriminator's parameters; without `interval`'s factor.

        Args:
            discriminator: Images (B, C, H, W) to logits (B,).
            real: Real images, (B, C, H, W).
            fake: Fake images, likewise; no gradient reaches the generator.
        """


class R1(GradientPenalty):
    """Gradient at real images."""

    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "r1"

    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return self.gamma / 2 * squared_gradient(discriminator, real)


class R1R2(GradientPenalty):
    """Gradients at real and at fake images."""

    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "r1_r2"

    def __call__(self, discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        return self.gamma / 2 * (squared_gradient(discriminator, real) + squared_gradient(discriminator, fake))


def squared_gradient(discriminator: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """|grad D|^2 of each image, (B,), summed over its pixels; in float32 also under autocast."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        logits = discriminator(images)
        gradient: Tensor
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(1)
