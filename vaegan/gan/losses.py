"""Adversarial losses: pure functions of logits, per image.

The discriminator D is trained towards positive logits for real images x, negative ones for fakes g.
With s = softplus:

    name            discriminator                    generator       source
    non_saturating  s(-D(x)) + s(D(g))               s(-D(g))        Goodfellow 2014, 1406.2661
    hinge           max(0, 1-D(x)) + max(0, 1+D(g))  -D(g)           Lim & Ye 2017, 1705.02894
    least_squares   ((D(x)-1)^2 + (D(g)+1)^2) / 2    (D(g)-1)^2 / 2  Mao et al. 2017, 1611.04076
    wasserstein     D(g) - D(x)                      -D(g)           Arjovsky 2017, 1701.07875
    relativistic    s(D(g) - D(x))                   s(D(x) - D(g))  Jolicoeur-M. 2019, 1807.00734

The last column gives arXiv numbers.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus

from vaegan.config import Component, ComponentConfig

Critic = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B,)


class AdversarialLoss(Component, abc.ABC, group="adversarial_loss"):
    """Losses of discriminator and generator, per image, from logits (B,)."""

    # True if a fake is compared with a real image: then only differences of logits count.
    IS_RELATIVISTIC: ClassVar[bool] = False

    @dataclass
    class Config(ComponentConfig):
        """Settings of a loss; `build()` constructs it."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss, (B,), from logits of real and fake images, (B,) each."""

    @abc.abstractmethod
    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the generator's loss, (B,), from logits of fake and real images, (B,) each.

        The real ones are zeros unless the loss `IS_RELATIVISTIC`.
        """


class NonSaturating(AdversarialLoss):
    """Cross-entropy of each image; the generator maximizes log sigmoid(D(g))."""

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "non_saturating"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(-fake)


class Hinge(AdversarialLoss):
    """Images that the discriminator classifies with a margin of 1 cost nothing."""

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
    """Difference of mean logits.

    Needs a discriminator of bounded slope: `gradient_penalty=wgan_gp`, or spectral normalization.
    """

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "wasserstein"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


class Relativistic(AdversarialLoss):
    """Each fake is compared with a real image: only the difference of their logits counts."""

    IS_RELATIVISTIC: ClassVar[bool] = True

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "relativistic"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake)
