"""The data set of a run that starts from a checkpoint."""

from __future__ import annotations

import logging
from typing import Any

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import from_plain, to_plain
from vaegan.data.dataset import ImageSource

log = logging.getLogger(__name__)
UNRELATED_KEYS = ("root", "cache", "num_threads")  # settings that do not change the splits


def build_source(
    config: ImageSource.Config | None, checkpoint: Checkpoint, checkpoint_word: str
) -> ImageSource:
    """Return the data set of a config, or the one that the VAE was trained on.

    Args:
        config: The data set; None for the VAE's.
        checkpoint: The VAE, or a GAN started from it.
        checkpoint_word: The word of the command that names the checkpoint, for messages.

    Raises:
        ValueError: Its images have another shape than the VAE's.
    """
    trained = checkpoint.vae["dataset"]
    if config is None:
        config = from_plain(ImageSource.Config, trained, "dataset")
    else:
        warn_about_mixed_splits(to_plain(config), trained)
    source: ImageSource = config.build()
    if source.image_shape != checkpoint.image_shape:
        raise ValueError(
            f"{checkpoint_word} makes images of shape {checkpoint.image_shape} (channels, height, "
            f"width), but dataset={config.name} has {source.image_shape}; leave dataset out to use "
            f"the VAE's, {trained['name']}, or train a VAE on this one"
        )
    return source


def warn_about_mixed_splits(given: dict[str, Any], trained: dict[str, Any]) -> None:
    """Warn if the VAE's data set has other settings: training images may now be in val or test."""
    if given["name"] != trained["name"]:
        return
    differing = [
        f"{key}={value} instead of {trained[key]}"
        for key, value in given.items()
        if key not in UNRELATED_KEYS and value != trained.get(key, value)
    ]
    if differing:
        log.warning(
            "the data set differs from the one that the VAE was trained on (%s): splits may mix",
            ", ".join(differing),
        )
