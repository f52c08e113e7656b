"""The image convention: float32, (C, H, W), in [0, 1]; on disk and in memory uint8, 0 to 255."""

from __future__ import annotations

from torch import Tensor

ImageShape = tuple[int, int, int]  # channels, height, width


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images, 0 to 255, to float32 in [0, 1], any shape."""
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Convert images in [0, 1] to uint8, rounded to the nearest of 256 levels, any shape."""
    return images.detach().clamp(0, 1).mul(255).round().byte()
