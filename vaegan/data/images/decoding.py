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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, UnidentifiedImageError, features

from vaegan.data.images.pixel_formats import (
    has_16_bits,
    has_unused_alpha,
    is_signed,
    is_white_zero,
    known_bit_depth,
)

SUFFIXES_BY_FORMAT = {  # only Pillow's decoders of these formats run
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
if "avif" in features.get_supported_modules():
    SUFFIXES_BY_FORMAT["AVIF"] = (".avif",)
FORMATS = tuple(SUFFIXES_BY_FORMAT)
SUFFIXES = frozenset(suffix for suffixes in SUFFIXES_BY_FORMAT.values() for suffix in suffixes)
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


class ImageTraits(NamedTuple):
    """Properties of an image file that its decoded pixels do not show."""

    num_bits: int = 0  # bits of the highest level in a 16-bit file; 0 for other files
    is_stack: bool = False  # True for a TIFF with several pages


class DecodedImage(NamedTuple):
    """Pixels and traits of an image file."""

    pixels: Pixels | None  # (height, width, channels); None if they are not needed
    traits: ImageTraits


@dataclass(frozen=True)
class ImageDecoder:
    """Decoder of image files to uint8 arrays (height, width, channels)."""

    channels: int  # 3: color, 1: gray
    height: int  # pixels
    width: int  # pixels
    keeps_ratio: bool  # True to crop to the target aspect ratio, False to stretch
    background: tuple[int, int, int]  # color behind transparent pixels: red, green, blue
    max_pixels: int  # larger images are rejected before they are decoded
    bit_depth: int = 16  # bits of the levels in 16-bit files; higher levels are clipped

    @property
    def max_bytes(self) -> int:
        """Maximum size of a file that contains an image of `max_pixels` pixels."""
        return self.max_pixels * MAX_BYTES_PER_PIXEL

    def __call__(self, content: bytes) -> Pixels:
        """Return the pixels of an image; see `decode`."""
        pixels = self.decode(content).pixels
        assert pixels is not None
        return pixels

    def decode(self, content: bytes) -> DecodedImage:
        """Decode an image, or the first frame of an animation or a stack.

        Raises:
            BrokenImage: The content is not an image of a known format, is damaged, or has too many
                pixels.
            MemoryError: There is not enough memory to decode the image.
        """
        with convert_decoder_errors():
            image = self._open(content)
            if image.format == "PNG":
                check_png_checksums(content)
            is_large = image.width * image.height > LARGE_IMAGE_PIXELS
            with LARGE_IMAGE_LOCK if is_large else nullcontext():
                return self._decode(image)

    def check(self, content: bytes) -> ImageTraits:
        """Check the header of an image. Only 16-bit images are decoded.

        Raises:
            BrokenImage: As in `decode`, except that a truncated image is not detected.
        """
        with convert_decoder_errors():
            image = self._open(content)
            return self.decode(content).traits if has_16_bits(image) else read_traits(image)

    def _open(self, content: bytes) -> Image.Image:
        if not content:
            raise BrokenImage("the file is empty")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > self.max_pixels:
            size = f"{image.width} x {image.height}"
            limit = f"dataset.max_pixels={self.max_pixels}"
            raise BrokenImage(f"the image has {size} pixels, more than {limit}")
        if (image.mode in ("I", "F") and not has_16_bits(image)) or is_signed(image):
            raise BrokenImage("the range of its signed or 32-bit pixel values is unknown")
        return image

    def _decode(self, image: Image.Image) -> DecodedImage:
        size = (self.width, self.height)
        is_upright = read_orientation(image) <= 4
        image.draft(self.mode, size if is_upright else (self.height, self.width))
        image.load()
        return DecodedImage(self.convert(image), read_traits(image))

    @property
    def mode(self) -> str:
        """Pillow's mode of the result."""
        return "L" if self.channels == 1 else "RGB"

    def convert(self, image: Image.Image) -> Pixels:
        """Convert a loaded Pillow image of any mode and size.

        Raises:
            BrokenImage: The range of the pixel values is unknown.
        """
        size = (self.width, self.height)
        orientation = read_orientation(image)  # after loading, as Pillow rotates TIFFs then
        image = to_opaque_8_bit(image, self.background, self.bit_depth).convert(self.mode)
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


def check_png_checksums(content: bytes) -> None:
    """Raise BrokenImage for a damaged PNG. Pillow would decode it to wrong pixels."""
    try:
        Image.open(io.BytesIO(content), formats=("PNG",)).verify()
    except SyntaxError as error:  # Pillow's error for a wrong checksum
        raise BrokenImage(f"damaged: {error}") from error


def read_traits(image: Image.Image) -> ImageTraits:
    """Return the traits of an image. A 16-bit image must be loaded, or is loaded here."""
    num_bits = 0
    if has_16_bits(image) and known_bit_depth(image) is None:
        num_bits = int(np.asarray(image).max()).bit_length()
    is_stack = image.format == "TIFF" and bool(getattr(image, "is_animated", False))
    return ImageTraits(num_bits, is_stack)


def to_opaque_8_bit(
    image: Image.Image, background: tuple[int, int, int], bit_depth: int
) -> Image.Image:
    """Convert to 8 bits per channel, without transparency.

    Args:
        image: Loaded image.
        background: Color behind transparent pixels.
        bit_depth: Bits of the levels of a 16-bit image, unless the file states them.
    """
    if has_16_bits(image):
        levels = np.asarray(image)
        shift = (known_bit_depth(image) or bit_depth) - 8
        scaled = np.minimum(levels >> shift, 255).astype(np.uint8)
        high_bytes = Image.fromarray(255 - scaled if is_white_zero(image) else scaled)
        if "transparency" not in image.info:
            return high_bytes
        is_opaque = levels != image.info["transparency"]
        result = Image.new("RGB", image.size, background)
        result.paste(high_bytes, mask=Image.fromarray(is_opaque.astype(np.uint8) * 255))
        return result
    if image.mode == "LAB" or has_unused_alpha(image):
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
