"""Augmentation of real and fake images before the discriminator, each with its own random numbers.

The generator learns through it, so it is differentiable, twice for the gradient penalties. Each
transformation T of a policy is applied to each image with probability p, independently:

    x <- T(x) with probability p, else x        Karras et al. 2020 (ADA), arXiv:2006.06676, sec. 2.2

With p < 1 the augmentations do not leak into the generated images. ADA adapts p to the
overfitting of the discriminator (`AdaptiveProbability`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig, require

Transformation = Callable[[Tensor], Tensor]  # of images (B, C, H, W), each in its own way


class Augmentation(Component, nn.Module, abc.ABC, group="augmentation"):
    """Random transformation of images. It has neither parameters nor state."""

    @dataclass
    class Config(ComponentConfig):
        """Settings of an augmentation; `build()` constructs it."""

        @property
        def probability(self) -> float:
            """Probability of each transformation of each image, at the start of the training."""
            return 0.0

        @property
        def adaptive_target(self) -> float | None:
            """Mean sign of real logits at which ADA holds the probability; None: it is constant."""
            return None

        @property
        def adaptive_images(self) -> int:
            """Number of images in which an adaptive probability can go from 0 to 1."""
            return 1

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        """Return augmented images (B, C, H, W), differentiable in the images.

        Their values may leave [0, 1].

        Args:
            images: In [0, 1], (B, C, H, W).
            probability: Of each transformation of each image, in [0, 1]; a scalar.
        """


class NoAugmentation(Augmentation):
    """The images as they are."""

    @dataclass
    class Config(Augmentation.Config):
        name: str = "none"

    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        return images


class DiffAugment(Augmentation):
    """Few strong transformations, in the order of the policy.

    brightness    adds a number in [-0.25, 0.25]
    contrast      multiplies by a number in [0.5, 1.5]
    saturation    multiplies the distance from gray by a number in [0, 2]; only with 3 channels
    translation   by whole pixels, up to 1/8 of the size, filled with 0
    cutout        sets a square of a quarter of the area to 0

    Nothing is clamped: that would stop gradients. Source: Zhao et al. 2020, arXiv:2006.10738,
    section 3.2 and appendix; the transformations are Kornia's: Riba et al. 2020, arXiv:1910.02190.
    """

    POLICY = ("brightness", "contrast", "saturation", "translation", "cutout")

    @dataclass
    class Config(Augmentation.Config):
        name: str = "diff_augment"
        # transformations, in this order
        policy: list[str] = field(default_factory=lambda: ["brightness", "translation", "cutout"])
        # of each transformation of each image; with adaptive_target: at the start
        probability: float = 1.0
        # mean sign of real logits at which ADA holds the probability (paper: 0.6); null: constant
        adaptive_target: float | None = None
        adaptive_images: int = 500_000  # images in which the probability can go from 0 to 1

        def __post_init__(self) -> None:
            super().__post_init__()
            known = DiffAugment.POLICY
            is_valid = 0 < len(self.policy) == len(set(self.policy) & set(known))
            expected = f"one or more of {', '.join(known)}, each once"
            require(is_valid, "policy", expected, self.policy)
            is_valid = 0 <= self.probability <= 1
            require(is_valid, "probability", "in [0, 1]", self.probability)
            target = self.adaptive_target
            is_valid = target is None or -1 < target < 1
            require(is_valid, "adaptive_target", "in (-1, 1), or null", target)
            num_images = self.adaptive_images
            require(num_images >= 1, "adaptive_images", "at least 1", num_images)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        transformations = _transformations()
        self.transformations = [transformations[name] for name in config.policy]

    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        for transform in self.transformations:
            is_changed = torch.rand(len(images), 1, 1, 1, device=images.device) < probability
            images = torch.where(is_changed, transform(images), images)
        return images


def _transformations() -> dict[str, Transformation]:
    """Return all transformations that a policy can name."""
    from kornia import augmentation as kornia  # takes seconds to import

    return {
        # Kornia adds the number - 1.
        "brightness": kornia.RandomBrightness((0.75, 1.25), clip_output=False),
        "contrast": kornia.RandomContrast((0.5, 1.5), clip_output=False),
        "saturation": _saturate,
        "translation": kornia.RandomTranslate(
            (-1 / 8, 1 / 8), (-1 / 8, 1 / 8), resample="nearest", p=1.0
        ),
        "cutout": kornia.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), p=1.0),
    }


def _saturate(images: Tensor) -> Tensor:
    """Multiply the saturation of each image by a random number in [0, 2].

    Kornia's own clamps, which stops the gradient of white and of saturated pixels.
    """
    from kornia.color import rgb_to_grayscale

    if images.shape[1] != 3:
        return images
    factor = 2 * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
    gray = rgb_to_grayscale(images)
    return gray + factor * (images - gray)


class AdaptiveProbability(nn.Module):
    """Probability p of an augmentation: constant, or adapted to the discriminator's overfitting.

    It rises while the discriminator is more certain of its training images than the target, r > t:

        p <- clamp(p + sign(r - t) * num_images / adaptive_images, 0, 1)

    Source: Karras et al. 2020 (ADA), arXiv:2006.06676, eq. 1 and section 3.
    """

    probability: Tensor

    def __init__(self, config: Augmentation.Config) -> None:
        super().__init__()
        self.target = config.adaptive_target
        self.adaptive_images = config.adaptive_images
        self.register_buffer("probability", torch.tensor(float(config.probability)))

    @property
    def is_adaptive(self) -> bool:
        """True if the probability follows the discriminator."""
        return self.target is not None

    def forward(self) -> Tensor:
        """Return p, a scalar in [0, 1]."""
        return self.probability

    def update(self, overfitting_r: Tensor, num_images: float) -> None:
        """Adapt p after a step of the discriminator.

        Args:
            overfitting_r: r = E[sign D(x)] over the step's augmented real images, a scalar; of a
                relativistic loss E[sign(D(x) - D(g))].
            num_images: Real images since the last update.
        """
        assert self.target is not None
        change = (overfitting_r.detach() - self.target).sign() * (num_images / self.adaptive_images)
        self.probability.copy_((self.probability + change).clamp(0, 1))
