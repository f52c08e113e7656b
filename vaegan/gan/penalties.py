"""Penalties on the gradient of the discriminator D with respect to its input, per image.

name     penalty                                   source
r1       |grad D(x)|^2 / 2 at real images x        Mescheder et al. 2018, arXiv:1801.04406
r2       |grad D(g)|^2 / 2 at fake images g        as r1
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
from vaegan.gan.losses import DiscriminatorFn
from vaegan.images import ImageShape
from vaegan.runtime.seeding import drawing_noise
from vaegan.training.compilation import without_compilation


class GradientPenalty(Component, abc.ABC, group="gradient_penalty"):
    """Penalty on the gradient of the discriminator with respect to its input, always in float32."""

    @dataclass
    class Config(ComponentConfig):
        """Settings of a penalty; `build(image_shape)` constructs the penalty."""

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        self.config = config
        self.image_shape = image_shape

    @abc.abstractmethod
    def weight(self, step: int, progress: float) -> float:
        """Return the weight of the penalty in a discriminator step; 0: the penalty is skipped.

        Args:
            step: Index of the discriminator step, from 0.
            progress: Fraction of discriminator steps done, in [0, 1].
        """

    def depends_on_progress(self) -> bool:
        """True if the weight depends on the fraction of steps done, and so on the duration."""
        steps, progress = (0, 1, 100, 10_000), [tenths / 10 for tenths in range(11)]
        return any(len({self.weight(step, value) for value in progress}) > 1 for step in steps)

    @abc.abstractmethod
    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        """Return the unweighted penalty of each image, (B,).

        It is differentiable in the discriminator's parameters; no gradient reaches the generator.

        Args:
            discriminator: Maps images (B, C, H, W) to logits (B,). Each logit must depend on its
                own image only, so no batch norm.
            real: Real images, (B, C, H, W).
            fake: Fake images, (B, C, H, W).
        """


class NoPenalty(GradientPenalty):
    """No penalty: weight 0."""

    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "none"

    def weight(self, step: int, progress: float) -> float:
        return 0.0

    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        return real.new_zeros(len(real))


class LazyPenalty(GradientPenalty, abc.ABC):
    """Penalty computed only in every `interval`-th step (lazy regularization).

    Its weight in these steps is interval * gamma * s, so that the mean over steps does not depend
    on the interval. s falls from 1 to `gamma_final` along half a cosine.
    Source: Karras et al. 2020, arXiv:1912.04958, appendix B.
    """

    @dataclass
    class Config(GradientPenalty.Config):
        # weight of the penalty, >= 0, for images in [0, 1]; equivalent to a weight of 4 * gamma for
        # images in [-1, 1]; null: 0.05 * C * H * W / 28^2, because the squared gradient falls with
        # the number of pixels
        gamma: float | None = None
        gamma_final: float = 1.0  # final weight as a fraction of gamma, >= 0; 1 keeps it constant
        interval: int = 16  # discriminator steps from one penalty to the next, >= 1

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
        scale = config.gamma_final + (1 - config.gamma_final) * decay
        return float(config.interval * gamma * scale)


class R1(LazyPenalty):
    """|grad D(x)|^2 / 2 at real images x.

    Source: Mescheder et al. 2018, arXiv:1801.04406, section 4.1.
    """

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1"

    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, real) / 2


class R2(LazyPenalty):
    """|grad D(g)|^2 / 2 at fake images g.

    Source: Mescheder et al. 2018, arXiv:1801.04406, section 4.1.
    """

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r2"

    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        return squared_gradient(discriminator, fake) / 2


class R1R2(LazyPenalty):
    """(|grad D(x)|^2 + |grad D(g)|^2) / 2 at real images x and fake images g.

    Source: Huang et al. 2024 (R3GAN), arXiv:2501.05441.
    """

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "r1_r2"

    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        return (squared_gradient(discriminator, real) + squared_gradient(discriminator, fake)) / 2


class WganGP(LazyPenalty):
    """(|grad D(u)| - 1)^2 at random points u = e x + (1 - e) g, e ~ U(0, 1) per image.

    Source: Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """

    @dataclass
    class Config(LazyPenalty.Config):
        name: str = "wgan_gp"
        gamma: float | None = 10.0  # weight of the penalty, >= 0; not null
        interval: int = 1  # discriminator steps from one penalty to the next, >= 1

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = "a number: the weight of wgan_gp does not depend on the image size"
            require(self.gamma is not None, "gamma", expected, self.gamma)

    def __call__(self, discriminator: DiscriminatorFn, real: Tensor, fake: Tensor) -> Tensor:
        with drawing_noise():
            epsilon = torch.rand(len(real), 1, 1, 1, device=real.device)
        interpolated = torch.lerp(fake.float(), real.float(), epsilon)
        # The derivative of a square root is infinite at 0.
        norm = (squared_gradient(discriminator, interpolated) + 1e-12).sqrt()
        return (norm - 1).square()


def squared_gradient(discriminator: DiscriminatorFn, images: Tensor) -> Tensor:
    """Return the squared norm |grad D(x)|^2 of the gradient at each image, (B,), in float32.

    Args:
        discriminator: Maps images (B, C, H, W) to logits (B,), each from its own image only.
        images: Images x, (B, C, H, W).
    """
    with torch.autocast(images.device.type, enabled=False), without_compilation():
        images = images.detach().float().requires_grad_()
        logits = discriminator(images)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().flatten(1).sum(1)
