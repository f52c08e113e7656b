"""Adversarial losses: pure functions of logits, one value per image.

The discriminator D is trained to output positive logits for real images x and negative logits for
fake images g. With s = softplus:

    name            discriminator                    generator       source
    non_saturating  s(-D(x)) + s(D(g))               s(-D(g))        Goodfellow 2014, 1406.2661
    hinge           max(0, 1-D(x)) + max(0, 1+D(g))  -D(g)           Lim & Ye 2017, 1705.02894
    least_squares   ((D(x)-1)^2 + (D(g)+1)^2) / 2    (D(g)-1)^2 / 2  Mao et al. 2017, 1611.04076
    wasserstein     D(g) - D(x)                      -D(g)           Arjovsky 2017, 1701.07875
    relativistic    s(D(g) - D(x))                   s(D(x) - D(g))  Jolicoeur-M. 2019, 1807.00734

The numbers in the last column are arXiv identifiers.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus

from vaegan.config import Component, ComponentConfig

DiscriminatorFn = Callable[[Tensor], Tensor]  # images (B, C, H, W) -> logits (B,)


class AdversarialLoss(Component, abc.ABC, group="adversarial_loss"):
    """Adversarial loss of the discriminator and of the generator, per image, no reduction."""

    # True if the loss depends only on differences D(x) - D(g) of real and fake logits.
    IS_RELATIVISTIC: ClassVar[bool] = False

    @dataclass
    class Config(ComponentConfig):
        """Settings of an adversarial loss; `build()` constructs the loss."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator loss of each pair of images, (B,).

        Args:
            real: Logits of real images, (B,).
            fake: Logits of fake images, (B,).
        """

    @abc.abstractmethod
    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the generator loss of each fake image, (B,).

        Args:
            fake: Logits of fake images, (B,).
            real: Logits of real images, (B,); zeros unless the loss `IS_RELATIVISTIC`.
        """


class NonSaturating(AdversarialLoss):
    """Cross-entropy s(-D(x)) + s(D(g)); the generator minimizes s(-D(g)) = -log sigmoid(D(g)).

    Unit: nats per image. Source: Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "non_saturating"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(-fake)


class Hinge(AdversarialLoss):
    """Hinge loss max(0, 1 - D(x)) + max(0, 1 + D(g)); the generator minimizes -D(g).

    Source: Lim and Ye 2017, arXiv:1705.02894.
    """

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "hinge"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real) + relu(1 + fake)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


class LeastSquares(AdversarialLoss):
    """Squared errors of logits: targets are 1 (real) and -1 (fake), and 1 for the generator.

    Source: Mao et al. 2017, arXiv:1611.04076.
    """

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "least_squares"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square() + (fake + 1).square()) / 2

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return (fake - 1).square() / 2


class Wasserstein(AdversarialLoss):
    """Wasserstein loss D(g) - D(x); the generator minimizes -D(g).

    It requires a Lipschitz-continuous discriminator: `gradient_penalty=wgan_gp` or spectral
    normalization. Source: Arjovsky et al. 2017, arXiv:1701.07875.
    """

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "wasserstein"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake


class Relativistic(AdversarialLoss):
    """Relativistic pairing loss s(D(g) - D(x)); the generator minimizes s(D(x) - D(g)).

    Source: Jolicoeur-Martineau 2019, arXiv:1807.00734; used by Huang et al. 2024 (R3GAN),
    arXiv:2501.05441.
    """

    IS_RELATIVISTIC: ClassVar[bool] = True

    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "relativistic"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        return softplus(real - fake)
