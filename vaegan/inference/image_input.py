"""Convert images of common types and layouts to float images (B, C, H, W) in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import from_plain
from vaegan.data.crops import CenteredImages
from vaegan.data.dataset import ImageSource
from vaegan.data.image_folder import ImageFolder
from vaegan.data.images.decoding import MAX_PIXELS, ImageDecoder
from vaegan.images import ImageShape, to_float

EMPTY = "images is empty; give at least one image"
EXAMPLES = "tensor or array of float values in [0, 1] or of uint8 values, or PIL images"


def training_decoder(checkpoint: Checkpoint) -> ImageDecoder:
    """Return the decoder of image files that the model of a checkpoint was trained with.

    If the data set has no image files, the decoder crops the center and uses a white background.
    """
    dataset = checkpoint.vae["dataset"]
    component = ImageSource.choices.get(dataset.get("name"))
    if component is not None and issubclass(component, ImageFolder):
        source = from_plain(ImageSource.Config, dataset, "dataset").build()
        assert isinstance(source, ImageFolder)
        return source.decoder
    channels, height, width = checkpoint.image_shape
    return ImageDecoder(channels, height, width, True, (255, 255, 255), MAX_PIXELS)


def decoded_to_images(pixels: Tensor, image_shape: ImageShape) -> Tensor:
    """Return decoded files (B, height, width, C), uint8, as images in [0, 1], (B, C, H, W).

    With crop=random the files are decoded at a larger size; the center is used, as in validation.
    """
    larger = pixels.permute(0, 3, 1, 2)
    return to_float(CenteredImages(larger, list(image_shape[1:]))[:]).contiguous()


def as_images(images: Any, image_shape: ImageShape, decoder: ImageDecoder) -> Tensor:
    """Return images as float32 in [0, 1], (B, C, H, W), without gradients.

    Args:
        images: A tensor or an array, float in [0, 1] or uint8 in 0 to 255, of the given shape:
            (B, C, H, W), (B, H, W, C), or without B or C (if C is 1); a PIL image; or a list of
            these.
        image_shape: (C, H, W).
        decoder: Converts PIL images, which may have any size and mode, as in training.

    Raises:
        ValueError: There are no images, or they have an unsupported shape or type, or values
            outside [0, 1].
    """
    if isinstance(images, Image.Image):
        pixels = torch.from_numpy(decoder.convert(images))
        return decoded_to_images(pixels.unsqueeze(0), image_shape)
    if isinstance(images, Sequence) and not isinstance(images, str):
        if not images:
            raise ValueError(EMPTY)
        return torch.cat([as_images(image, image_shape, decoder) for image in images])
    if not isinstance(images, Tensor | np.ndarray):
        raise ValueError(f"images must be a {EXAMPLES}; got {type(images).__name__}")
    tensor = torch.as_tensor(images).detach()
    if not tensor.numel():
        raise ValueError(EMPTY)
    return to_batch(to_unit_range(tensor), image_shape)


def to_unit_range(images: Tensor) -> Tensor:
    """Return uint8 images, booleans, or floats that are in [0, 1], as float32.

    Raises:
        ValueError: The values have another type or range.
    """
    if images.dtype == torch.uint8:
        return to_float(images)
    if images.dtype == torch.bool:
        return images.float()
    if not images.is_floating_point():
        raise ValueError(
            f"images must be float in [0, 1] or uint8 in 0 to 255; got {images.dtype}. Convert "
            "8-bit levels with images.astype('uint8') or images.to(torch.uint8)"
        )
    if not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images of float values must be in [0, 1]; got values from {images.min():.4g} to "
            f"{images.max():.4g}. Divide 8-bit levels by 255, or pass them as uint8"
        )
    return images.float()


def to_batch(images: Tensor, image_shape: ImageShape) -> Tensor:
    """Return images as (B, C, H, W), from the layouts that `as_images` lists.

    Raises:
        ValueError: The images have another shape.
    """
    channels, height, width = image_shape
    shape = tuple(images.shape)
    if len(shape) in (3, 4) and shape[-3:] == image_shape:
        return images.reshape(-1, *image_shape)
    if len(shape) in (3, 4) and shape[-3:] == (height, width, channels):
        return images.reshape(-1, height, width, channels).permute(0, 3, 1, 2).contiguous()
    if channels == 1 and len(shape) in (2, 3) and shape[-2:] == (height, width):
        return images.reshape(-1, *image_shape)
    raise ValueError(
        f"images must have the shape (B, {channels}, {height}, {width}) or (B, {height}, {width}, "
        f"{channels}) that the model was trained on; got {shape}. Resize them, or pass PIL images, "
        "which are cropped and resized as in training"
    )
