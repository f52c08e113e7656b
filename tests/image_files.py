"""Image files of all supported formats for tests."""

import io

import numpy as np
from PIL import Image

from vaegan.data.images.decoding import FORMATS

KINDS = {  # mode, format, options
    "rgb.jpg": ("RGB", "JPEG", {}),
    "gray.jpg": ("L", "JPEG", {}),
    "cmyk.jpg": ("CMYK", "JPEG", {}),
    "progressive.jpeg": ("RGB", "JPEG", {"progressive": True}),
    "rgb.png": ("RGB", "PNG", {}),
    "gray.png": ("L", "PNG", {}),
    "bits.png": ("1", "PNG", {}),
    "palette.png": ("P", "PNG", {}),
    "alpha.png": ("RGBA", "PNG", {}),
    "gray_alpha.png": ("LA", "PNG", {}),
    "deep.png": ("I;16", "PNG", {}),
    "rgb.webp": ("RGB", "WEBP", {}),
    "alpha.webp": ("RGBA", "WEBP", {"lossless": True}),
    "rgb.bmp": ("RGB", "BMP", {}),
    "rgb.tif": ("RGB", "TIFF", {}),
    "cmyk.tiff": ("CMYK", "TIFF", {"compression": "tiff_lzw"}),
    "deep.tiff": ("I;16", "TIFF", {}),
    "palette.gif": ("P", "GIF", {}),
    "rgb.ppm": ("RGB", "PPM", {}),
    "gray.pgm": ("L", "PPM", {}),
    "bits.pbm": ("1", "PPM", {}),
    "deep.pgm": ("I;16", "PPM", {}),
    "rgb.avif": ("RGB", "AVIF", {}),
    "alpha.avif": ("RGBA", "AVIF", {}),
}

KINDS = {name: kind for name, kind in KINDS.items() if kind[1] in FORMATS}  # AVIF is optional


def draw(mode="RGB", width=40, height=30, seed=0):
    """Return a smooth random image."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
    return image.convert(mode)


def encode(image, format="PNG", **options):
    """Return an image as the bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def encode_12_bits(seed=0, format="PNG", width=24, height=24):
    """Return a 16-bit gray image file of random levels below 4096."""
    levels = np.random.default_rng(seed).integers(0, 4096, (height, width))
    return encode(Image.fromarray(levels.astype(np.uint16)), format)


def content(kind, **size):
    """Return the bytes of a random image file; `kind` is a key of `KINDS`."""
    mode, format, options = KINDS[kind]
    return encode(draw(mode, **size), format, **options)


def fill(folder, num, start=0, width=40, height=30, suffix="png"):
    """Write `num` different images to a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:04d}.{suffix}" for i in range(start, start + num)]
    for i, path in enumerate(paths, start):
        path.write_bytes(encode(draw(width=width, height=height, seed=i)))
    return paths
