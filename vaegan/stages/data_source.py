"""Build the data set of a run that starts from a checkpoint."""

from __future__ import annotations

import logging
from typing import Any

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import from_plain, to_plain
from vaegan.data.dataset import ImageSource

log = logging.getLogger(__name__)
# settings that do not affect the splits: location, decoding and training
LOCATION_KEYS = ("root", "cache", "cache_gb", "num_threads")
DECODING_KEYS = ("image_size", "channels", "crop", "background", "bit_depth", "flip")
UNRELATED_KEYS = (*LOCATION_KEYS, *DECODING_KEYS, "on_error", "max_broken")


def dataset_config(config: ImageSource.Config | None, checkpoint: Checkpoint) -> ImageSource.Config:
    """Return the config of a data set; None selects the data set that a VAE was trained on."""
    if config is not None:
        return config.resolve_defaults()
    trained: ImageSource.Config = from_plain(
        ImageSource.Config, checkpoint.vae["dataset"], "dataset"
    )
    return trained


def build_source(
    config: ImageSource.Config | None, checkpoint: Checkpoint, checkpoint_option: str
) -> ImageSource:
    """Build the data set of a config, or the one that the VAE was trained on.

    Args:
        config: Data set; None selects the data set of the VAE.
        checkpoint: Checkpoint of the VAE, or of a GAN started from it.
        checkpoint_option: Option that gave the checkpoint, as typed, for error messages.

    Raises:
        ValueError: The images do not have the shape that the VAE was trained on.
    """
    trained = checkpoint.vae["dataset"]
    is_given = config is not None
    config = dataset_config(config, checkpoint)
    if is_given:
        warn_about_mixed_splits(to_plain(config), trained)
    source: ImageSource = config.build()
    if source.image_shape != checkpoint.image_shape:
        advice = (
            f"omit dataset to use {trained['name']}, which the VAE was trained on, or train a VAE "
            f"on {config.name}"
        )
        if config.name == trained["name"]:
            advice = "use the settings that the VAE was trained with, or train a VAE with these"
        raise ValueError(
            f"{checkpoint_option} generates images of shape {checkpoint.image_shape} (channels, "
            f"height, width), but dataset={config.name} has {source.image_shape}; {advice}"
        )
    return source


def warn_about_mixed_splits(given: dict[str, Any], trained: dict[str, Any]) -> None:
    """Warn if the settings differ, as the VAE's training images may then be in val or test."""
    if given["name"] != trained["name"]:
        return
    differing = [
        f"{key}={value} instead of {trained[key]}"
        for key, value in given.items()
        if key not in UNRELATED_KEYS and value != trained.get(key, value)
    ]
    if differing:
        log.warning(
            "the data set differs from the one that the VAE was trained on (%s): training images "
            "of the VAE may be in the val or test split",
            ", ".join(differing),
        )
