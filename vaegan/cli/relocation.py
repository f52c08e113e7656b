"""`dataset.root=FOLDER` with a checkpoint: the data set of the checkpoint, in another folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vaegan.cli.path_words import read_paths
from vaegan.cli.resume import assignments
from vaegan.config import from_plain, to_plain
from vaegan.data.dataset import ImageSource

CHECKPOINT_STAGES = {"ckpt": ["vae", "gan"], "vae_ckpt": ["vae"], "init": ["vae", "gan"]}


def expand_dataset(words: Sequence[str], conf: Path) -> list[str]:
    """Add the data set of the checkpoint to a command that sets its keys without selecting it.

    In `stage=evaluate ckpt=RUN dataset.root=FOLDER`, the other keys of `dataset` are then those of
    the VAE's training. Keys in the command take precedence.

    Args:
        words: The command line.
        conf: Folder of the project's configs.

    Raises:
        ValueError: A checkpoint cannot be loaded, or the checkpoints of a sweep have different data
            sets.
    """
    keys = [word.partition("=")[0].lstrip("+") for word in words]
    checkpoints = [  # a resumed run also has the empty ones
        (key, paths)
        for key, word in zip(keys, words, strict=True)
        if key in CHECKPOINT_STAGES and any(paths := read_paths(word))
    ]
    has_dataset_key = any(key.startswith("dataset.") for key in keys)
    if not checkpoints or not has_dataset_key or "dataset" in keys or selects_dataset(words, conf):
        return list(words)
    dataset = trained_dataset(*checkpoints[-1])
    added = assignments("dataset", {name: dataset[name] for name in dataset if name != "name"})
    missing = [word for word in added if word.partition("=")[0] not in keys]
    given = [
        word.lstrip("+") if word.lstrip("+").startswith("dataset.") else word for word in words
    ]
    return [f"dataset={dataset['name']}", *missing, *given]


def trained_dataset(key: str, paths: Sequence[str]) -> dict[str, Any]:
    """Return the plain config of the data set that the VAE of each checkpoint was trained on.

    Raises:
        ValueError: A checkpoint cannot be loaded, or the data sets differ.
    """
    from vaegan.checkpoints.checkpoint import load_checkpoint
    from vaegan.checkpoints.find_checkpoint import find_checkpoint

    found = []
    for path in paths:
        checkpoint = load_checkpoint(find_checkpoint(path, key, CHECKPOINT_STAGES[key]))
        config = from_plain(ImageSource.Config, checkpoint.vae["dataset"], "dataset")
        found.append(to_plain(config))
    if any(dataset != found[0] for dataset in found):
        raise ValueError(
            f"the checkpoints in {key} were trained on different data sets; add dataset=..."
        )
    return found[0]


def selects_dataset(words: Sequence[str], conf: Path) -> bool:
    """True if an experiment in the command selects a data set."""
    if not any(word.lstrip("+").startswith("experiment=") for word in words):
        return False
    overrides = [word for word in words if not word.startswith("-")]
    try:
        with hydra.initialize_config_dir(str(conf), version_base="1.3"):
            hydra.compose("config", overrides)
    except AssertionError:  # OmegaConf's error for a key of a component that is null
        return False
    except (HydraException, OmegaConfBaseException):
        pass  # reported when the command is composed
    return True
