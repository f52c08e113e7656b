"""Emphasis of colors and details in the images that the discriminator sees.

Neighboring pixels and the channels of a pixel are strongly correlated in natural images, so blur
and wrong colors change a discriminator's input little, and it takes long to learn to detect them.
Networks learn faster from inputs whose variances are similar in all directions (LeCun et al. 1998,
Efficient BackProp, doi:10.1007/3-540-49430-8_2, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vaegan.config import from_plain, require

# Tuned on clip art
NATURAL_SATURATION = 3.0
NATURAL_SHARPNESS = 4.0


@dataclass
class EmphasisConfig:
    """Emphasis of colors and details in the images before the discriminator."""

    # factor on each channel's difference from the mean over channels, > 0; 1: no change; null: 3
    # for natural images, else 1
    saturation: float | None = None
    # weight of the details (the image minus its mean over 3 x 3 pixels) that are added to the
    # image, >= 0; 0: no change; null: 4 for natural images, else 0
    sharpness: float | None = None

    def __post_init__(self) -> None:
        saturation, sharpness = self.saturation, self.sharpness
        is_valid = saturation is None or 0 < saturation < math.inf
        require(is_valid, "saturation", "positive and finite, or null", saturation)
        is_valid = sharpness is None or 0 <= sharpness < math.inf
        require(is_valid, "sharpness", "at least 0 and finite, or null", sharpness)

    def __str__(self) -> str:
        return f"emphasis.saturation={self.saturation} emphasis.sharpness={self.sharpness}"

    @property
    def is_neutral(self) -> bool:
        """True if the images do not change."""
        return self.saturation == 1 and self.sharpness == 0

    def resolve_defaults(self, is_natural: bool) -> EmphasisConfig:
        """Return the config with null values replaced by those for natural or other images."""
        saturation, sharpness = self.saturation, self.sharpness
        if saturation is None:
            saturation = NATURAL_SATURATION if is_natural else 1.0
        if sharpness is None:
            sharpness = NATURAL_SHARPNESS if is_natural else 0.0
        return replace(self, saturation=saturation, sharpness=sharpness)


def saved_emphasis(run: Mapping[str, Any]) -> EmphasisConfig:
    """Return the emphasis in the plain config of a GAN; earlier versions had none.

    Raises:
        ValueError: The entry is invalid.
    """
    return from_plain(EmphasisConfig, run.get("emphasis", {"saturation": 1.0, "sharpness": 0.0}))


class Emphasis(nn.Module):
    """Fixed, invertible linear filter that changes the saturation and sharpness of images.

    With saturation s, sharpness k, the mean m of a pixel over its channels, and the mean B over the
    3 x 3 pixels around each pixel:

        y = m(x) + s (x - m(x))
        output = y + k (y - B(y))

    Uniform areas of gray do not change, nor does the saturation of images with one channel.

    Args:
        config: Settings without null values.
    """

    def __init__(self, config: EmphasisConfig) -> None:
        super().__init__()
        assert config.saturation is not None and config.sharpness is not None
        self.saturation = config.saturation
        self.sharpness = config.sharpness

    def forward(self, images: Tensor) -> Tensor:
        """Return filtered images, (B, C, H, W), not clamped, of images (B, C, H, W)."""
        if self.saturation != 1:
            mean = images.mean(1, keepdim=True)
            images = mean + self.saturation * (images - mean)
        if self.sharpness != 0:
            images = images + self.sharpness * (images - local_mean(images))
        return images


def local_mean(images: Tensor) -> Tensor:
    """Return means over 3 x 3 pixels, (B, C, H, W); pixels at the borders are repeated.

    This is faster on a CPU than `avg_pool2d`, and deterministic on a GPU, unlike replication
    padding.
    """
    for dim in (2, 3):
        first, last = images.narrow(dim, 0, 1), images.narrow(dim, -1, 1)
        size = images.shape[dim] - 1
        before = torch.cat([first, images.narrow(dim, 0, size)], dim)
        after = torch.cat([images.narrow(dim, 1, size), last], dim)
        images = (before + images + after) / 3
    return images
