"""Pixel formats that Pillow reads without interpreting them."""

from __future__ import annotations

from PIL import Image

TIFF_BITS_PER_SAMPLE = 258  # TIFF tag: bits of each channel
TIFF_PHOTOMETRIC = 262  # TIFF tag: 0 if level 0 is white, 1 if it is black
TIFF_EXTRA_SAMPLES = 338  # TIFF tag: meaning of the channels after the colors
TIFF_SAMPLE_FORMAT = 339  # TIFF tag: 2 if the levels are signed


def has_16_bits(image: Image.Image) -> bool:
    """True for a gray image of unsigned 16-bit levels. Pillow scales those of a PGM to 16 bits."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")


def known_bit_depth(image: Image.Image) -> int | None:
    """Return the bits of the levels of a 16-bit image if the file states them; else None."""
    if image.format != "TIFF":
        return None
    num_bits = int(image.getexif().get(TIFF_BITS_PER_SAMPLE, 16))
    return num_bits if 8 <= num_bits < 16 else None


def is_signed(image: Image.Image) -> bool:
    """True for a TIFF with signed levels. Pillow reads those of 8 bits as unsigned."""
    return image.format == "TIFF" and image.getexif().get(TIFF_SAMPLE_FORMAT) == 2


def is_white_zero(image: Image.Image) -> bool:
    """True for a TIFF in which level 0 is white. Pillow inverts only those with 8 bits or fewer."""
    return image.format == "TIFF" and image.getexif().get(TIFF_PHOTOMETRIC) == 0


def has_unused_alpha(image: Image.Image) -> bool:
    """True if the fourth channel is 0 everywhere because it is no alpha: its writer did not set it.

    This occurs in a 32-bit BMP, and in a TIFF that does not name its fourth channel.
    """
    has_alpha = image.format == "TIFF" and TIFF_EXTRA_SAMPLES in image.getexif()
    is_unused = image.format in ("BMP", "TIFF") and image.mode == "RGBA" and not has_alpha
    return is_unused and image.getchannel("A").getextrema() == (0, 0)
