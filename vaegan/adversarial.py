"""Adversarial losses and gradient penalties: pure functions of logits and of discriminators.

D is trained towards positive logits for real images, negative ones for fakes. With s = softplus:

    non_saturating   D: s(-D(x)) + s(D(g))              G: s(-D(g))         Goodfellow et al. 2014, arXiv:1406.2661
    hinge            D: max(0, 1-D(x)) + max(0, 1+D(g)) G: -D(g)            Lim & Ye 2017, arXiv:1705.02894
    least_squares    D: ((D(x)-1)^2 + (D(g)+1)^2) / 2   G: (D(g)-1)^2 / 2   Mao et al. 2017, arXiv:1611.04076
    wasserstein      D: D(g) - D(x)                     G: -D(g)            Arjovsky et al. 2017, arXiv:1701.07875
    relativistic     D: s(D(g) - D(x))                  G: s(D(x) - D(g))   Jolicoeur-Martineau 2019, arXiv:1807.00734

    r1               |grad D(x)|^2 / 2 at real images       Mescheder et al. 2018, arXiv:1801.04406
    r2               |grad D(g)|^2 / 2 at fakes             likewise
    r1_r2            their sum                              Huang et al. 2024, arXiv:2501.05441
    wgan_gp          (|grad D| - 1)^2 between the two       Gulrajani et al. 2017, arXiv:1704.00028
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from vaegan.config import Component, ComponentConfig, require
from vaegan.images import ImageShape

Judge = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B,)


class AdversarialLoss(Component, abc.ABC, group="adversarial_loss"):
    """What the two players minimise, per image, from logits (B,)."""

    PAIRED: ClassVar[bool] = False  # whether a fake is judged against a real image: then only differences count

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


class Hinge(AdversarialLoss):
    """The discriminator leaves images alone that it judges right by a margin of 1."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "hinge"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real) + relu(1 + fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


class LeastSquares(AdversarialLoss):
    """Logits are drawn to 1 for real images and to -1 for fakes; the generator draws them to 1."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "least_squares"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square() + (fake + 1).square()) / 2

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return (fake - 1).square() / 2


class Wasserstein(AdversarialLoss):
    """Needs a discriminator whose slope is bounded: `gradient_penalty=wgan_gp`, or spectral normalisation."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "wasserstein"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


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
    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
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

    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return real.new_zeros(len(real))


class LazyPenalty(GradientPenalty, abc.ABC):
    """With a weight that may fall by half a cosine."""

    @dataclass
    class Config(GradientPenalty.Config):
        gamma: float | None = None  # weight, for images in [0, 1] (4 gamma for [-1, 1]); null: 0.05 for 28 x 28 grey
        # pixels, and in proportion to their number: a sum of squares over more pixels is smaller for the same logits
        gamma_final: float = 1.0  # the last weight, as a share of gamma; 1 keeps it constant
        interval: int = 16  # discriminator steps from one penalty to the next

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.gamma is None or self.gamma >= 0, "gamma", "at least 0, or null", self.gamma)
            require(self.gamma_final >= 0, "gamma_final", "at least 0", self.gamma_final)
            require(self.interval >= 1, "interval", "at least 1", self.interval)

    def weight(self, step: int, progress: float) -> float:
        config = self.config
        if step % config.interval:
            return 0.0
        gamma = 0.05 * math.prod(self.image_shape) / 28**2 if config.gamma is None else config.gamma
        share = config.gamma_final + (1 - config.gamma_final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return float(config.interval * gamma * share)


class R1(LazyPenalty):
    """Gradient at real images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1"

    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, real) / 2


class R2(LazyPenalty):
    """Gradient at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r2"

    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, fake) / 2


class R1R2(LazyPenalty):
    """Gradients at real and at fake images."""

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1_r2"

    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
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
            require(self.gamma is not None, "gamma", "a number: this penalty is the same at every size", self.gamma)

    def __call__(self, discriminator: Judge, real: Tensor, fake: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(fake.float(), real.float(), share)
        norm = (squared_gradient(discriminator, between) + 1e-12).sqrt()  # a root's slope at 0 is infinite
        return (norm - 1).square()


def squared_gradient(discriminator: Judge, images: Tensor) -> Tensor:
    """|grad D|^2 of each image, (B,), summed over its pixels; in float32 also under autocast."""
    with torch.autocast(images.device.type, enabled=False):
        images = images.detach().float().requires_grad_()
        logits = discriminator(images)
        gradient: Tensor
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(1)
