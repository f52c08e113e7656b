"""Write images as PNG, GIF and WebP."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from vaegan.images import to_uint8

FRAME_MS = 60  # duration of a frame of an animation
MIN_ANIMATION_SIZE = 128  # frames are enlarged to at least this height, in pixels


def to_pixels(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return an image in [0, 1], (C, H, W), as 8-bit levels (H, W, C)."""
    return to_uint8(image).permute(1, 2, 0).cpu().numpy()


def to_pillow(image: Tensor) -> Image.Image:
    """Return an image in [0, 1], (1, H, W) or (3, H, W), as a Pillow image.

    Raises:
        ValueError: The image has another number of channels.
    """
    pixels = to_pixels(image)
    if pixels.shape[2] not in (1, 3):
        raise ValueError(
            f"image files need 1 or 3 channels; the model has {pixels.shape[2]}. Use format=npz"
        )
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def write_png(image: Tensor, path: Path) -> None:
    """Write an image in [0, 1], (1 or 3, H, W)."""
    to_pillow(image).save(path)


def write_animation(images: Iterable[Tensor], path: Path) -> None:
    """Write images in [0, 1], (1 or 3, H, W) each, as an endless GIF or WebP, by the suffix."""
    frames = []
    for image in map(to_pillow, images):
        factor = max(1, -(-MIN_ANIMATION_SIZE // image.height))
        size = (factor * image.width, factor * image.height)
        frames.append(image.resize(size, Image.Resampling.NEAREST))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
