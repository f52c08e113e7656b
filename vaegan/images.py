"""The image convention.

Models and metrics see float32 images in [0, 1], shape (C, H, W) or batched (B, C, H, W). Files and
caches hold uint8 images in 0 to 255.
"""

from __future__ import annotations

from torch import Tensor

ImageShape = tuple[int, int, int]  # channels, height, width


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 images of any shape to float32 in [0, 1]: level / 255."""
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Convert float images of any shape to uint8, rounded to the nearest of the 256 levels.

    Values outside [0, 1] are clamped. The result is detached from the autograd graph.
    """
    return images.detach().clamp(0, 1).mul(255).round().byte()
