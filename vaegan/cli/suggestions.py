"""Suggest known keys and choices for misspelled ones. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from vaegan.config import did_you_mean

KeyOwners = Mapping[str, Sequence[str]]  # dotted key: the choices that have it; () if all do
DEFAULT_STAGE = "pipeline"
SYNONYMS = {  # name that newcomers type: key, or last part of a key
    "epochs": "trainer.max_epochs",
    "epoch": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "steps": "trainer.max_epochs",
    "max_steps": "trainer.max_epochs",
    "bs": "loader.batch_size",
    "batch": "loader.batch_size",
    "learning_rate": "lr",
    "workers": "loader.num_workers",
    "gpu": "trainer.accelerator",
    "gpus": "trainer.devices",
    "device": "trainer.accelerator",
    "cuda": "trainer.accelerator",
    "amp": "trainer.precision",
    "fp16": "trainer.precision",
    "half": "trainer.precision",
    "data": "dataset",
    "data_dir": "dataset.root",
    "data_path": "dataset.root",
    "data_root": "dataset.root",
    "dataset.path": "dataset.root",
    "dataset.dir": "dataset.root",
    "dataset.folder": "dataset.root",
    "folder": "dataset.root",
    "images": "dataset.root",
    "size": "dataset.image_size",
    "img_size": "dataset.image_size",
    "resolution": "dataset.image_size",
    "model": "stage",
    "mode": "stage",
    "task": "stage",
    "z_dim": "latent_dim",
    "z": "latent_dim",
    "nz": "latent_dim",
    "latent": "latent_dim",
    "latent_size": "latent_dim",
    "beta": "objective.beta_schedule",
    "loss": "likelihood",
    "checkpoint": "ckpt",
    "checkpoint_path": "ckpt",
    "load": "ckpt",
    "weights": "ckpt",
    "vae": "vae_ckpt",
    "vae_checkpoint": "vae_ckpt",
    "early_stopping": "early_stopping_patience",
    "patience": "early_stopping_patience",
    "config": "experiment",
    "name": "label",
    "output_dir": "hydra.run.dir",
    "out": "hydra.run.dir",
    "outdir": "hydra.run.dir",
    "out_dir": "hydra.run.dir",
    "save_dir": "hydra.run.dir",
    "log_dir": "hydra.run.dir",
    "logdir": "hydra.run.dir",
    "run_dir": "hydra.run.dir",
}
ALWAYS_KNOWN = ("stage", "experiment", "hydra.run.dir", "hydra.sweep.dir")


def explain_unknown_choice(group: str, name: str, known: Sequence[str]) -> str:
    """Return the message for a component, a stage or an experiment that does not exist."""
    near = did_you_mean(name.lower().replace("-", "_"), known)
    plugins = ". To use your own component, add plugins=[MODULE]"
    if group == "stage" and (not near or name.lower() in ("train", "training", "fit")):
        near = " The training stages are vae, gan, and pipeline, which trains both."
    if group == "dataset":
        plugins = (
            ". For a folder of images, write dataset=image_folder dataset.root=FOLDER; to use your "
            "own data set, add plugins=[MODULE]"
        )
    return f"{group}={name} is not a known choice.{near} Known choices: {', '.join(known)}{plugins}"


def explain_unknown_key(key: str, stage: str, keys: Mapping[str, KeyOwners]) -> str:
    """Return the message for a key that the composed config does not have.

    Args:
        key: The key.
        stage: Stage of the command.
        keys: Keys of each stage.
    """
    owners = keys.get(stage, keys[DEFAULT_STAGE])
    known = [*owners, *ALWAYS_KNOWN]
    if key == "arm":
        return (
            "arm=NAME is for experiment=warm_start_study; to use an arm with other settings, write "
            "+arm=NAME"
        )
    if owners.get(key):
        group, names = owner_choices(owners[key])
        also = f" (also of {', '.join(names[1:])})" if names[1:] else ""
        remedy = f"select it or omit {key}"
        if group == "dataset" and names[0] == "image_folder":
            remedy = "for a folder of images, add dataset=image_folder dataset.root=FOLDER"
        return f"{key} is a key of {group}={names[0]}{also}, which is not selected; {remedy}"
    near = suggest_key(key, known)
    elsewhere = [name for name in keys if key in keys[name]]
    if elsewhere and not matching_keys(key, known):
        near = f" It is a key of stage={' and stage='.join(elsewhere)}."
    return (
        f"unknown key {key} for stage={stage}.{near} "
        f"To list all keys: python train.py stage={stage} --help"
    )


def owner_choices(owners: Sequence[str]) -> tuple[str, list[str]]:
    """Return the group and the names of choices such as "prior=flow", image_folder first."""
    names = [owner.partition("=")[2] for owner in owners]
    return owners[0].partition("=")[0], sorted(names, key=lambda name: name != "image_folder")


def suggest_key(key: str, known: Sequence[str]) -> str:
    """Return ' Did you mean ...?' for an unknown key, or '' if no known key is close."""
    if found := matching_keys(key, known):
        return f" Did you mean {' or '.join(found[:3])}?"
    # The last part counts: the whole key may be close only because of its section.
    similar = get_close_matches(last_part(key), {last_part(name) for name in known}, n=1)
    matches = [name for name in known if last_part(name) in similar]
    return did_you_mean(key, matches, cutoff=0)


def last_part(key: str) -> str:
    """Return the part of a dotted key after the last dot."""
    return key.rpartition(".")[2]


def matching_keys(key: str, known: Sequence[str]) -> list[str]:
    """Return the known keys that end with a typed key, or with the key that it is a synonym of."""
    key = key.lower()
    target = SYNONYMS.get(key, key)
    if last_part(key) not in map(last_part, known):
        target = SYNONYMS.get(key, SYNONYMS.get(last_part(key), key))
    if target in known:
        return [target]
    found = [name for name in known if name.endswith(f".{target}")]
    return found or [name for name in known if name.endswith(f"_{target}")]


def selected_stage(args: Sequence[str]) -> str:
    """Return the stage that a command line selects."""
    stages = [arg.removeprefix("stage=") for arg in args if arg.startswith("stage=")]
    return stages[0] if stages else DEFAULT_STAGE
