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
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus

from vaegan.config import Component, ComponentConfig

Critic = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B,)


class AdversarialLoss(Component, abc.ABC, group="adversarial_loss"):
    """What the two players minimize, per image, from logits (B,)."""

    IS_RELATIVISTIC: ClassVar[bool] = (
        False  # whether a fake is judged against a real image: then only differences count
    )

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

        The real ones are zeros unless the class is `IS_RELATIVISTIC`.
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
    """Needs a discriminator whose slope is bounded: `gradient_penalty=wgan_gp`, or spectral normalization."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "wasserstein"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


class Relativistic(AdversarialLoss):
    """Each fake is judged against a real image: only the difference of the logits counts."""

    IS_RELATIVISTIC: ClassVar[bool] = True

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "relativistic"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake)
