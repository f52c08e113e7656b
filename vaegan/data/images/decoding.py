"""Decode image files of many formats to uint8 arrays of one shape.

Any input gives an array or raises `BrokenImage`. Nothing in the input is executed: only Pillow's
decoders for the formats below run, and no other program. A JPEG is decoded at its smallest reduced
size that is at least the target size, which saves most of the decoding time.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
)
PILLOW_VERSION: str = PIL.__version__
MAX_PIXELS = 178_956_970  # Pillow's own limit
MAX_BYTES_PER_PIXEL = 16  # of an accepted file: 4 uncompressed channels of 32 bits
LARGE_IMAGE_PIXELS = 16_000_000  # larger ones may need a gigabyte each: decoded one at a time
LARGE_IMAGE_LOCK = threading.Lock()
EXIF_ORIENTATION = 0x0112  # EXIF tag: the rotation or mirroring that makes the image upright
UPRIGHT_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Pixels = npt.NDArray[np.uint8]


class BrokenImage(Exception):
    """Raised for a file that cannot be used as an image. The message gives the reason."""


@dataclass(frozen=True)
class ImageDecoder:
    """Decoder of image files to uint8 arrays (height, width, channels)."""

    channels: int  # 3: color, 1: gray
    height: int  # pixels
    width: int  # pixels
    keeps_ratio: bool  # True to crop to the target aspect ratio, False to stretch
    background: tuple[int, int, int]  # color behind transparent pixels: red, green, blue
    max_pixels: int  # larger images are rejected before they are decoded

    @property
    def max_bytes(self) -> int:
        """Maximum size of a file that contains an image of `max_pixels` pixels."""
        return self.max_pixels * MAX_BYTES_PER_PIXEL

    def __call__(self, content: bytes) -> Pixels:
        """Decode an image, or the first frame of an animation.

        Raises:
            BrokenImage: The content is not an image of a known format, is damaged, or has too many
                pixels.
            MemoryError: There is not enough memory to decode the image.
        """
        with convert_decoder_errors():
            image = self._open(content)
            is_large = image.width * image.height > LARGE_IMAGE_PIXELS
            with LARGE_IMAGE_LOCK if is_large else nullcontext():
                return self._decode(image)

    def check(self, content: bytes) -> None:
        """Check the header of an image, without decoding the pixels.

        Raises:
            BrokenImage: As in `__call__`, except that a truncated image is not detected.
        """
        with convert_decoder_errors():
            self._open(content)

    def _open(self, content: bytes) -> Image.Image:
        if not content:
            raise BrokenImage("the file is empty")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > self.max_pixels:
            size = f"{image.width} x {image.height}"
            limit = f"dataset.max_pixels={self.max_pixels}"
            raise BrokenImage(f"the image has {size} pixels, more than {limit}")
        return image

    def _decode(self, image: Image.Image) -> Pixels:
        mode = "L" if self.channels == 1 else "RGB"
        size = (self.width, self.height)
        is_upright = read_orientation(image) <= 4
        image.draft(mode, size if is_upright else (self.height, self.width))
        image.load()
        orientation = read_orientation(image)  # again, as Pillow rotates TIFFs on load
        image = to_opaque_8_bit(image, self.background).convert(mode)
        if orientation in UPRIGHT_TRANSPOSES:
            image = image.transpose(UPRIGHT_TRANSPOSES[orientation])
        box = center_box(image.size, size) if self.keeps_ratio else None
        pixels = np.array(image.resize(size, Image.Resampling.BICUBIC, box=box))
        return pixels.reshape(self.height, self.width, self.channels)


@contextmanager
def convert_decoder_errors() -> Iterator[None]:
    """Convert decoder errors to BrokenImage. Damaged files can raise any type of exception."""
    try:
        yield
    except (BrokenImage, MemoryError):
        raise
    except Exception as error:
        raise BrokenImage(describe_error(error)) from error


def to_opaque_8_bit(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Convert to 8 bits per channel, without transparency.

    Raises:
        BrokenImage: The pixel values are floating-point numbers, or integers of more than 16 bits.
            Their range is unknown.
    """
    if image.mode in ("I", "F"):
        raise BrokenImage("the range of its 32-bit pixel values is unknown")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        high_bytes = Image.fromarray((levels >> 8).astype(np.uint8))
        if "transparency" not in image.info:
            return high_bytes
        is_opaque = levels != image.info["transparency"]
        result = Image.new("RGB", image.size, background)
        result.paste(high_bytes, mask=Image.fromarray(is_opaque.astype(np.uint8) * 255))
        return result
    if image.mode == "LAB":
        return image.convert("RGB")
    if image.has_transparency_data:
        result = Image.new("RGBA", image.size, (*background, 255))
        result.alpha_composite(image.convert("RGBA"))
        return result
    return image


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 (upright) if the EXIF data are damaged."""
    try:
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        return 1


def center_box(
    image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return the largest centered box with the aspect ratio of `size`.

    Args:
        image_size: Width and height of the image.
        size: Target width and height.

    Returns:
        Left, top, right and bottom.
    """
    scale = min(image_size[0] / size[0], image_size[1] / size[1])
    width = size[0] * scale
    height = size[1] * scale
    left = max(0.0, (image_size[0] - width) / 2)
    top = max(0.0, (image_size[1] - height) / 2)
    right = min(left + width, image_size[0])  # rounding may exceed the image
    bottom = min(top + height, image_size[1])
    return left, top, right, bottom


def describe_error(error: Exception) -> str:
    """Describe an error in one printable line. Its message may contain bytes of the file."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "".join(character for character in text if character.isprintable())


def silence_warnings() -> None:
    """Silence Pillow's warnings about single images. Broken images are reported as skipped."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
