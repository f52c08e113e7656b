"""Read image files with the decoder that a model was trained with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.data.images.decoding import SUFFIXES, DecodedImage, silence_warnings
from vaegan.data.images.reading import count_usable_cores, read_all
from vaegan.data.images.scanning import ImageFile, scan
from vaegan.inference.image_input import decoded_to_images, training_decoder

log = logging.getLogger(__name__)


class NamedImages(NamedTuple):
    """Images with the names of their files."""

    names: list[str]  # paths relative to the folder
    images: Tensor  # in [0, 1], (N, C, H, W)


def read_images(path: str, key: str, checkpoint: Checkpoint) -> NamedImages:
    """Read an image file, or all image files below a folder. Broken files are skipped.

    Args:
        path: The file or the folder, as typed by the user.
        key: Setting that gave the path, for error messages.
        checkpoint: Checkpoint of the model. It defines shape and decoding of the images.

    Raises:
        ValueError: There is no image file, or none of the files can be decoded.
    """
    root, files = find_files(path, key)
    decoder = training_decoder(checkpoint)
    silence_warnings()

    def decode(digest: bytes, content: bytes) -> DecodedImage:
        return decoder.decode(content)

    names: list[str] = []
    pixels: list[Tensor] = []
    reason = ""
    threads = min(len(files), count_usable_cores())
    for content in read_all(root, files, decode, decoder.max_bytes, threads):
        if content.pixels is None:
            reason = f"{content.file.path!r}: {content.reason}"
            log.warning("skipping %s", reason)
            continue
        names.append(content.file.path)
        pixels.append(torch.from_numpy(content.pixels))
    if not names:
        raise ValueError(f"{key}={path}: no usable image files (tried: {len(files)}); {reason}")
    return NamedImages(names, decoded_to_images(torch.stack(pixels), checkpoint.image_shape))


def find_files(path: str, key: str) -> tuple[Path, list[ImageFile]]:
    """Return the folder of an image file, or a folder, and the image files to read in it.

    Raises:
        ValueError: The path does not exist, or there is no image file below it.
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise ValueError(f"{key}={path} does not exist; give an image file, or a folder of them")
    if root.is_dir():
        files = scan(root)[0]
    else:
        status = root.stat()
        root, files = root.parent, [ImageFile(root.name, status.st_size, status.st_mtime_ns)]
    if not files:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{key}={path} contains no image files ({suffixes})")
    return root, files
