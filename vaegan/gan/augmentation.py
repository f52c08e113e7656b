"""Augmentation of what the discriminator sees: reals and fakes alike, each image with random numbers of its own.

The generator learns through it, so it is differentiable, twice for the gradient penalties. Each transformation T of a
policy is applied to each image with probability p, independently of all others:

    x <- T(x) with probability p, else x        Karras et al. 2020 (ADA), arXiv:2006.06676, section 2.2

Below p = 1 the generator cannot profit from making its images look augmented; a p that follows the overfitting of the
discriminator is ADA, `next_probability`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig, require

Transformation = Callable[
    [Tensor], Tensor
]  # of all images (B, C, H, W), each with its own random numbers


class Augmentation(Component, nn.Module, abc.ABC, group="augmentation"):
    """Images to randomly transformed ones; of no parameters and no state."""

    @dataclass
    class Config(ComponentConfig):
        @property
        def probability(self) -> float:
            """Of each transformation of each image, at the start of the training."""
            return 0.0

        @property
        def adaptive_target(self) -> float | None:
            """What `next_probability` aims at; None where the probability stays."""
            return None

        @property
        def adaptive_images(self) -> int:
            """Images in which an adaptive probability can go from 0 to 1."""
            return 1

        def build(self) -> Augmentation:
            built: Augmentation = self.component(self)
            return built

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        """Augmented images (B, C, H, W), which may leave [0, 1], differentiable in the images.

        Args:
            images: In [0, 1], (B, C, H, W).
            probability: Of each transformation of each image, in [0, 1]; a number or a scalar tensor.
        """


class NoAugmentation(Augmentation):
    """The images as they are."""

    @dataclass
    class Config(Augmentation.Config):
        name: str = "none"

    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        return images


class DiffAugment(Augmentation):
    """Few strong transformations, in the order of the policy. Random numbers come from torch's global generators.

    brightness    adds a number in [-0.25, 0.25]
    contrast      multiplies by a number in [0.5, 1.5]
    saturation    multiplies the distance from gray by a number in [0, 2]; does nothing unless there are 3 channels
    translation   by whole pixels, up to 1/8 of the size; what comes in is 0
    cutout        a square of a quarter of the area is 0

    Nothing is clamped: that would stop gradients. Source: Zhao et al. 2020, arXiv:2006.10738, section 3.2 and
    appendix; the transformations are Kornia's: Riba et al. 2020, arXiv:1910.02190.
    """

    POLICY = ("brightness", "contrast", "saturation", "translation", "cutout")

    @dataclass
    class Config(Augmentation.Config):
        name: str = "diff_augment"
        policy: list[str] = field(
            default_factory=lambda: ["brightness", "translation", "cutout"]
        )  # in this order
        probability: float = (
            1.0  # of each transformation of each image; where adaptive_target is set: at the start
        )
        adaptive_target: float | None = (
            None  # mean sign of real logits to hold it at (ADA: 0.6); null: constant
        )
        adaptive_images: int = 500_000  # images in which an adaptive probability can go from 0 to 1

        def __post_init__(self) -> None:
            super().__post_init__()
            known = DiffAugment.POLICY
            is_valid = 0 < len(self.policy) == len(set(self.policy) & set(known))
            require(
                is_valid, "policy", f"one or more of {', '.join(known)}, each once", self.policy
            )
            require(0 <= self.probability <= 1, "probability", "in [0, 1]", self.probability)
            target = self.adaptive_target
            require(
                target is None or -1 < target < 1, "adaptive_target", "in (-1, 1), or null", target
            )
            require(
                self.adaptive_images >= 1, "adaptive_images", "at least 1", self.adaptive_images
            )

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
    """All that a policy can name."""
    from kornia import augmentation as kornia  # late: it takes seconds

    return {
        "brightness": kornia.RandomBrightness(
            (0.75, 1.25), clip_output=False
        ),  # Kornia adds the number - 1
        "contrast": kornia.RandomContrast((0.5, 1.5), clip_output=False),
        "saturation": _saturate,
        "translation": kornia.RandomTranslate(
            (-1 / 8, 1 / 8), (-1 / 8, 1 / 8), resample="nearest", p=1.0
        ),
        "cutout": kornia.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), p=1.0),
    }


def _saturate(images: Tensor) -> Tensor:
    """Random saturation. Kornia's own clamps, which stops the gradient of white and of saturated pixels."""
    from kornia.color import rgb_to_grayscale

    if images.shape[1] != 3:
        return images
    factor = 2 * torch.rand(len(images), 1, 1, 1, device=images.device, dtype=images.dtype)
    gray: Tensor = rgb_to_grayscale(images)
    return gray + factor * (images - gray)


def next_probability(
    probability: Tensor,
    overfitting_r: Tensor,
    target: float,
    num_images: float,
    adaptive_images: int,
) -> Tensor:
    """The probability of an adaptive augmentation after a step of the discriminator, in [0, 1], without gradient.

    It rises while the discriminator is surer of its training images than the target, r > target:

        p <- clamp(p + sign(r - target) * num_images / adaptive_images)

    Args:
        probability: Of the step, a scalar.
        certainty: r = E[sign D(x)] over the step's real images, augmented as they were, a scalar.
        target: Mean sign to hold, in (-1, 1).
        num_images: Real images since the last call.
        adaptive_images: Images in which the probability can go from 0 to 1.

    Source: Karras et al. 2020, arXiv:2006.06676, eq. 1 and section 3.
    """
    return (
        probability + (overfitting_r.detach() - target).sign() * (num_images / adaptive_images)
    ).clamp(0, 1)
