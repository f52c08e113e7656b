"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import logging
from typing import Any

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import from_plain, to_plain
from vaegan.data.dataset import ImageSource

log = logging.getLogger(__name__)


def build_source(config: Any, checkpoint: Checkpoint, named: str) -> ImageSource:
    """The data set of a config, or the VAE's where that is None; `named` is how the user named the checkpoint.

    Raises:
        ValueError: Its images have another shape than the VAE's.
    """
    if config is None:
        config = from_plain(ImageSource.Config, checkpoint.vae["dataset"], "dataset")
    else:
        warn_of_other_splits(to_plain(config), checkpoint.vae["dataset"])
    source: ImageSource = config.build()
    if source.image_shape != checkpoint.image_shape:
        raise ValueError(
            f"{named} makes images of shape {checkpoint.image_shape} (channels, height, width), but "
            f"dataset={config.name} has {source.image_shape}; leave dataset out to use the VAE's, "
            f"{checkpoint.vae['dataset']['name']}, or train a VAE on this one"
        )
    return source


def warn_of_other_splits(given: dict[str, Any], trained: dict[str, Any]) -> None:
    """Where the VAE's own data set comes with other settings, its training images may be in the val or test split."""
    if given["name"] == trained["name"]:
        places = ("root", "cache", "num_threads")
        keys = [
            key
            for key, value in given.items()
            if key not in places and value != trained.get(key, value)
        ]
        if keys:
            differ = ", ".join(f"{key}={given[key]} for {trained[key]}" for key in keys)
            log.warning(
                "the data set differs from the one that the VAE was trained on (%s): splits may mix",
                differ,
            )
