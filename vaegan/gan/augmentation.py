"""Augmentation of real and fake images before the discriminator.

The generator is trained through the augmentation, which is therefore differentiable (twice, for
gradient penalties). Each transformation T of a policy is applied to each image independently:

    x <- T(x) with probability p, else x        Karras et al. 2020 (ADA), arXiv:2006.06676, sec. 2.2

With p < 1 the augmentations do not leak into the generated images in theory; in practice leaks are
unlikely for p up to about 0.8 (section 2.2). ADA adapts p to the overfitting of the discriminator
(`AdaptiveProbability`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vaegan.config import Component, ComponentConfig, require

GRAY = 0.5  # value of pixels without content; 0 in the paper, whose images are in [-1, 1]
# images (B, C, H, W) -> images (B, C, H, W), with random parameters drawn for each image
Transformation = Callable[[Tensor], Tensor]


class Augmentation(Component, nn.Module, abc.ABC, group="augmentation"):
    """Random transformation of images, without parameters, buffers or other state."""

    @dataclass
    class Config(ComponentConfig):
        """Settings of an augmentation; `build()` constructs the augmentation."""

        @property
        def probability(self) -> float:
            """Initial probability of applying each transformation to an image, in [0, 1]."""
            return 0.0

        @property
        def adaptive_target(self) -> float | None:
            """Target of ADA for the mean sign of real logits; None: constant probability."""
            return None

        @property
        def adaptive_images(self) -> int:
            """Number of images in which ADA can raise the probability from 0 to 1."""
            return 1

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @abc.abstractmethod
    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        """Return augmented images (B, C, H, W), differentiable in `images`.

        The result is not clamped to [0, 1].

        Args:
            images: Images in [0, 1], (B, C, H, W).
            probability: Probability of applying each transformation to an image, in [0, 1];
                a scalar.
        """


class NoAugmentation(Augmentation):
    """No augmentation: return the images unchanged."""

    @dataclass
    class Config(Augmentation.Config):
        name: str = "none"

    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        return images


def draw_uniform(images: Tensor, low: float, high: float) -> Tensor:
    """Draw one number in [low, high) for each image, (B, 1, 1, 1), on the images' device."""
    noise = torch.rand(len(images), 1, 1, 1, device=images.device)
    return (low + (high - low) * noise).to(images.dtype)


def draw_integers(images: Tensor, low: int, high: int) -> Tensor:
    """Draw one integer from low to high for each image, (B, 1), on the images' device."""
    noise = torch.rand(len(images), 1, device=images.device)
    return (low + (noise * (high - low + 1)).long()).clamp(max=high)  # the product may round up


def shift_brightness(images: Tensor) -> Tensor:
    """Return x + b, b ~ U(-0.25, 0.25) per image."""
    return images + draw_uniform(images, -0.25, 0.25)


def scale_contrast(images: Tensor) -> Tensor:
    """Return m + c (x - m), c ~ U(0.5, 1.5) per image, with m the mean of the image."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + draw_uniform(images, 0.5, 1.5) * (images - mean)


def scale_saturation(images: Tensor) -> Tensor:
    """Return m + s (x - m), s ~ U(0, 2) per image, with m the mean over the channels of a pixel."""
    mean = images.mean(1, keepdim=True)
    return mean + draw_uniform(images, 0, 2) * (images - mean)


def translate(images: Tensor) -> Tensor:
    """Shift each image by whole pixels, at most 1/8 of its size in each direction.

    Rows and columns are gathered from the image padded by one gray pixel on each side, which is
    exact in every dtype and, unlike `grid_sample` in torch 2.11, differentiable twice.
    """
    num_channels, height, width = images.shape[1:]
    rows, columns = (
        torch.arange(size, device=images.device) + draw_integers(images, -(size // 8), size // 8)
        for size in (height, width)
    )
    rows = (rows + 1).clamp(0, height + 1)
    columns = (columns + 1).clamp(0, width + 1)
    padded = pad(images, (1, 1, 1, 1), value=GRAY)
    moved = padded.gather(2, rows[:, None, :, None].expand(-1, num_channels, -1, width + 2))
    return moved.gather(3, columns[:, None, None, :].expand(-1, num_channels, height, -1))


def cut_out(images: Tensor) -> Tensor:
    """Set a square with a quarter of the area, at a random position, to gray in each image."""
    height, width = images.shape[2:]
    side = min(int((height * width / 4) ** 0.5), height, width)
    is_inside = []
    for size in (height, width):
        position = torch.arange(size, device=images.device)
        start = draw_integers(images, 0, size - side)
        is_inside.append((position >= start) & (position < start + side))
    is_cut = is_inside[0][:, None, :, None] & is_inside[1][:, None, None, :]
    return images.masked_fill(is_cut, GRAY)


TRANSFORMATIONS: dict[str, Transformation] = {
    "brightness": shift_brightness,
    "contrast": scale_contrast,
    "saturation": scale_saturation,
    "translation": translate,
    "cutout": cut_out,
}


class DiffAugment(Augmentation):
    """DiffAugment: a few strong transformations, applied in the order of the policy.

    brightness    x + b, b ~ U(-0.25, 0.25)
    contrast      m + c (x - m), c ~ U(0.5, 1.5), m the mean of the image
    saturation    m + s (x - m), s ~ U(0, 2), m the mean over the channels of a pixel
    translation   shift by whole pixels, at most 1/8 of the image size, padded with gray
    cutout        set a square with a quarter of the image area to gray

    All random numbers are drawn on the device of the images, and every operation keeps their
    dtype. The result is not clamped, because clamping would stop gradients.

    Source: Zhao et al. 2020, arXiv:2006.10738, section 3.2 and appendix.
    """

    @dataclass
    class Config(Augmentation.Config):
        name: str = "diff_augment"
        # transformations in order, each at most once: brightness, contrast, saturation,
        # translation, cutout
        policy: list[str] = field(default_factory=lambda: ["brightness", "translation", "cutout"])
        # probability of applying each transformation to an image, in [0, 1]; the initial value if
        # adaptive_target is set
        probability: float = 1.0
        # mean sign of real logits, in (-1, 1), that ADA keeps by adapting the probability (0.6 in
        # the paper); null: constant probability
        adaptive_target: float | None = None
        # real images over which ADA can raise the probability from 0 to 1, >= 1
        adaptive_images: int = 500_000

        def __post_init__(self) -> None:
            super().__post_init__()
            known = TRANSFORMATIONS
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
        self.transformations = [TRANSFORMATIONS[name] for name in config.policy]

    def forward(self, images: Tensor, probability: Tensor | float) -> Tensor:
        for transform in self.transformations:
            is_changed = torch.rand(len(images), 1, 1, 1, device=images.device) < probability
            images = torch.where(is_changed, transform(images), images)
        return images


class AdaptiveProbability(nn.Module):
    """Augmentation probability p: constant, or adapted to discriminator overfitting (ADA).

    r = E[sign D(x)] over real images x measures overfitting. p rises while r is above the target t:

        p <- clamp(p + sign(r - t) * num_images / adaptive_images, 0, 1)

    Source: Karras et al. 2020 (ADA), arXiv:2006.06676, eq. 1 and section 3.

    Args:
        config: Settings of the augmentation: initial p, t (None: p is constant), adaptive_images.
    """

    probability: Tensor

    def __init__(self, config: Augmentation.Config) -> None:
        super().__init__()
        self.target = config.adaptive_target
        self.adaptive_images = config.adaptive_images
        self.register_buffer("probability", torch.tensor(float(config.probability)))

    @property
    def is_adaptive(self) -> bool:
        """True if p is adapted to the discriminator."""
        return self.target is not None

    def forward(self) -> Tensor:
        """Return p, a scalar in [0, 1]."""
        return self.probability

    def update(self, overfitting_r: Tensor, num_images: float) -> None:
        """Adapt p after a discriminator step.

        Args:
            overfitting_r: r = E[sign D(x)] over the augmented real images of the step, or
                E[sign(D(x) - D(g))] for a relativistic loss; a scalar in [-1, 1].
            num_images: Real images since the last update.
        """
        assert self.target is not None
        change = (overfitting_r.detach() - self.target).sign() * (num_images / self.adaptive_images)
        self.probability.copy_((self.probability + change).clamp(0, 1))
