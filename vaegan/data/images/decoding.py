"""Pictures of many formats to uint8 arrays of one shape. Whatever bytes come in, an array or `BrokenImage` comes out.

Reading executes nothing: only Pillow's decoders of the formats below run, and no other program. A JPEG is decoded at
the smallest of its reduced sizes that is not below the size wanted, which saves most of the time.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
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
MAX_PIXELS = 178_956_970  # Pillow refuses larger pictures whatever we say
BYTES_PER_PIXEL = 16  # of the largest file that is read: 4 channels of 32 bits, not compressed
LARGE_PIXELS = 16_000_000  # pictures above that are decoded one at a time: each may take a gigabyte
LARGE = threading.Lock()
ORIENTATION = 0x0112  # EXIF tag: how a picture is to be turned or mirrored to stand upright
UPRIGHT = {
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
    """Why a file cannot be used as a picture."""


@dataclass(frozen=True)
class Decoder:
    """Content of a file to an array (height, width, channels)."""

    channels: int  # 3 color, 1 gray
    height: int  # pixels
    width: int  # pixels
    keeps_ratio: bool  # cut off what is too long, on both sides alike; else stretch
    background: tuple[
        int, int, int
    ]  # what shows through where a picture is transparent: red, green, blue
    max_pixels: int  # of the picture in the file: what has more is refused before it is decoded

    @property
    def max_bytes(self) -> int:
        """Of a file: no picture of at most `max_pixels` needs more."""
        return self.max_pixels * BYTES_PER_PIXEL

    def __call__(self, content: bytes) -> Pixels:
        """The picture, of an animation the first frame.

        Raises:
            BrokenImage: The content is no picture of a known format, is damaged, or has too many pixels.
            MemoryError: There is not enough.
        """
        try:
            image = self._open(content)
            with LARGE if image.width * image.height > LARGE_PIXELS else nullcontext():
                return self._decode(image)
        except (BrokenImage, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever occurs to them when the bytes are bad
            raise BrokenImage(reason(error)) from error

    def check(self, content: bytes) -> None:
        """What can be told of a picture without decoding it.

        Raises:
            BrokenImage: As above; a picture that is cut short is not noticed.
        """
        try:
            self._open(content)
        except BrokenImage:
            raise
        except Exception as error:
            raise BrokenImage(reason(error)) from error

    def _open(self, content: bytes) -> Image.Image:
        if not content:
            raise BrokenImage("the file is empty")
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > self.max_pixels:
            size = f"{image.width} x {image.height}"
            raise BrokenImage(
                f"its {size} pixels are more than dataset.max_pixels={self.max_pixels}"
            )
        return image

    def _decode(self, image: Image.Image) -> Pixels:
        mode, size = "L" if self.channels == 1 else "RGB", (self.width, self.height)
        image.draft(mode, size if exif_orientation(image) <= 4 else size[::-1])
        image.load()
        orientation = exif_orientation(image)  # now, as Pillow turns TIFFs by itself
        image = flatten(image, self.background).convert(mode)
        image = image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image
        box = center_box(image.size, size) if self.keeps_ratio else None
        pixels = np.array(image.resize(size, Image.Resampling.BICUBIC, box=box))
        return pixels.reshape(self.height, self.width, self.channels)


def flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The picture with 8 bits a channel, and nothing transparent.

    Raises:
        BrokenImage: Its values are floating-point numbers, or integers of more than 16 bits: their range is unknown.
    """
    if image.mode in ("I", "F"):
        raise BrokenImage("its values are numbers of 32 bits, whose range is unknown")
    if image.mode.startswith("I;16"):
        levels = np.asarray(image)
        flat = Image.fromarray((levels >> 8).astype(np.uint8))
        if "transparency" not in image.info:
            return flat
        is_seen = levels != image.info["transparency"]
        ground = Image.new("RGB", image.size, background)
        ground.paste(flat, mask=Image.fromarray(is_seen.astype(np.uint8) * 255))
        return ground
    if image.mode == "LAB":
        return image.convert("RGB")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, (*background, 255))
        ground.alpha_composite(image.convert("RGBA"))
        return ground
    return image


def exif_orientation(image: Image.Image) -> int:
    """How the picture is to be turned; 1, as it is, where damaged EXIF data do not tell."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def center_box(
    image_size: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Largest part of a picture (width, height) with the ratio of `size`, in its center: left, top, right, bottom."""
    scale = min(image_size[0] / size[0], image_size[1] / size[1])
    width, height = size[0] * scale, size[1] * scale
    left, top = max(0.0, (image_size[0] - width) / 2), max(0.0, (image_size[1] - height) / 2)
    return (
        left,
        top,
        min(left + width, image_size[0]),
        min(top + height, image_size[1]),
    )  # rounding goes beyond


def reason(error: Exception) -> str:
    """What a decoder says, in one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"no picture of a known format ({', '.join(FORMATS)})"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return "".join(
        c for c in text if c.isprintable()
    )  # it may come from the file, and goes to a terminal


def quiet() -> None:
    """Silence Pillow's warnings about single pictures: what matters of them is in the list of skipped ones."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
