"""Explain why Hydra cannot compose a command line, and suggest known keys and choices."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence

from vaegan.config import GROUPS, ComponentConfig, did_you_mean
from vaegan.runtime.paths import quote_for_hydra, shell_word
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES

HYDRA_PLUGINS = {  # Hydra's plugins and the extras that install them
    "optuna": "sweep",
    "joblib": "sweep",
    "submitit_local": "sweep",
    "submitit_slurm": "sweep",
    "ray": "ray",
}
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
TYPE_NAMES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


def explain(error: Exception, args: Sequence[str]) -> str:
    """Return a readable message for an error of Hydra or OmegaConf."""
    cause = "" if error.__cause__ is None else str(error.__cause__)
    message = str(error) if cause in str(error) else f"{error}\n{cause}"
    plugin = re.search(r"Could not (?:find|load) '(hydra/(?:sweeper|launcher))/(\w+)'", message)
    if plugin and plugin[2] in HYDRA_PLUGINS:
        extra = HYDRA_PLUGINS[plugin[2]]
        return (
            f"{plugin[1]}={plugin[2]} needs a plugin that is not installed. Install it with: "
            f"uv sync --extra {extra}, or pip install '.[{extra}]'"
        )
    if choice := re.search(r"Could not find '([\w/]+)/([^/']+)'", message):
        return explain_unknown_choice(
            choice[1], choice[2], re.findall(r"^\t(\w+)$", message, re.MULTILINE)
        )
    if config_file := re.match(r"In '(\w+)/([^']+)': .*\n", message):
        return explain_config_file(config_file[1], config_file[2], message[config_file.end() :])
    if override := re.search(r"Could not override '([^']+)'", message):
        return explain_unknown_key(override[1], selected_stage(args))
    if ambiguous := re.search(r"Ambiguous value for argument '(.*?)'\n", message):
        return explain_comma(ambiguous[1])
    return explain_value(message, cause or message)


def explain_config_file(group: str, name: str, message: str) -> str:
    """Return the message for a key or a value in the file of an experiment or an arm."""
    key = re.search(r"full_key: (\S+)", message)
    unknown = re.match(r"Key '\w+' not in '(\w+)'", message)
    if key is None or unknown is None:
        return f"{group}={name}: {explain_value(message, message)}"
    stages = [stage for stage, entry in STAGES.items() if entry.config.__name__ == unknown[1]]
    where = f", which stage={stages[0]} does not have" if stages else ", which does not exist"
    elsewhere = [stage for stage in STAGES if key[1] in key_owners(stage_config(stage))]
    if elsewhere:
        remedy = f"; the {group} is for stage={' or stage='.join(elsewhere)}"
    else:
        known = dict.fromkeys(known for stage in STAGES for known in known_keys(stage))
        remedy = f"; correct the file.{suggest_key(key[1], list(known))}"
    return f"{group}={name} sets {key[1]}{where}{remedy}"


def explain_value(message: str, cause: str) -> str:
    """Return the message for a value that does not have the type of its key."""
    reason = cause.splitlines()[0]
    key = re.search(r"full_key: (\S+)", message)
    if not key:
        return message
    typed = re.search(r"could not be converted to (\w+)", reason)
    if not typed:
        return f"{key[1]}: {reason}"
    return f"{key[1]} must be {TYPE_NAMES.get(typed[1], typed[1])}: {reason}"


def explain_comma(word: str) -> str:
    """Return the message for a value with a comma in a command that is not a sweep."""
    key, _, value = word.partition("=")
    return (
        f"{word} has a comma: for a sweep over these values, add -m; for one value with a comma, "
        f"write {shell_word(key, quote_for_hydra(value))}; for a list, write '{key}=[{value}]'"
    )


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


def explain_unknown_key(key: str, stage: str) -> str:
    """Return the message for a key that the composed config does not have."""
    owners = key_owners(stage_config(stage))
    known = known_keys(stage)
    if key == "arm":
        return (
            "arm=NAME is for experiment=warm_start_study; to use an arm with other settings, write "
            "+arm=NAME"
        )
    if owners.get(key):
        group = owners[key].partition("=")[0]
        names = choices_with(group, key)
        also = f" (also of {', '.join(names[1:])})" if names[1:] else ""
        remedy = f"select it or omit {key}"
        if group == "dataset" and names[0] == "image_folder":
            remedy = "for a folder of images, add dataset=image_folder dataset.root=FOLDER"
        return f"{key} is a key of {group}={names[0]}{also}, which is not selected; {remedy}"
    near = suggest_key(key, known)
    elsewhere = [name for name in STAGES if key in key_owners(stage_config(name))]
    if elsewhere and not matching_keys(key, known):
        near = f" It is a key of stage={' and stage='.join(elsewhere)}."
    return (
        f"unknown key {key} for stage={stage}.{near} "
        f"To list all keys: python train.py stage={stage} --help"
    )


def known_keys(stage: str) -> list[str]:
    """Return all keys that a command with a stage can set."""
    return [*key_owners(stage_config(stage)), *ALWAYS_KNOWN]


def suggest_key(key: str, known: Sequence[str]) -> str:
    """Return ' Did you mean ...?' for an unknown key, or '' if no known key is close."""
    if found := matching_keys(key, known):
        return f" Did you mean {' or '.join(found[:3])}?"
    return did_you_mean(key, known)


def matching_keys(key: str, known: Sequence[str]) -> list[str]:
    """Return the known keys that end with a typed key, or with the key that it is a synonym of."""
    target = SYNONYMS.get(key.lower(), SYNONYMS.get(key.lower().rpartition(".")[2], key))
    if target in known:
        return [target]
    found = [name for name in known if name.endswith(f".{target}")]
    return found or [name for name in known if name.endswith(f"_{target}")]


def choices_with(group: str, key: str) -> list[str]:
    """Return the choices of a group that have a key, with dataset=image_folder first."""
    field = key.rpartition(".")[2]
    names = [
        name
        for name, component in GROUPS[group].choices.items()
        if field in component.Config.__dataclass_fields__
    ]
    return sorted(names, key=lambda name: name != "image_folder")


def explain_null_component(args: Sequence[str]) -> str:
    """Return the message for a command that sets a key of a component that is not selected."""
    stage = selected_stage(args)
    keys = [arg.split("=")[0].lstrip("+") for arg in args]
    owners = key_owners(stage_config(stage))
    for key in keys:
        is_unselected = key.split(".")[0] in set(GROUPS) - set(keys)
        if is_unselected and key not in owners:
            near = did_you_mean(key, owners)
            return f"unknown key {key}, and no {key.split('.')[0]} is selected.{near}"
        group = owners.get(key, "").split("=")[0]
        if group and group not in keys:
            known = ", ".join(choices_with(group, key))
            return f"{key} is set, but no {group} is selected; add {group}=..., one of {known}"
    return (
        "the command sets a key of a component that is null. To see which components are null: "
        f"python train.py stage={stage} --help"
    )


def selected_stage(args: Sequence[str]) -> str:
    """Return the stage that a command line selects."""
    stages = [arg.removeprefix("stage=") for arg in args if arg.startswith("stage=")]
    return stages[0] if stages else DEFAULT_STAGE


def stage_config(stage: str) -> type[RunConfig]:
    """Return the config class of a stage, or of the default stage if the name is unknown."""
    return STAGES.get(stage, STAGES[DEFAULT_STAGE]).config


def key_owners(schema: type, owner: str = "") -> dict[str, str]:
    """Return all dotted keys of a schema as {key: choice that has the key, such as "prior=flow"}.

    The keys of all choices of a group are included. The value is "" for keys outside components.
    """
    hints = typing.get_type_hints(schema)
    owners: dict[str, str] = {}
    for field in dataclasses.fields(schema):
        owners[field.name] = owner
        for part in (hints[field.name], *typing.get_args(hints[field.name])):
            nested: list[tuple[type, str]] = []
            if isinstance(part, type) and issubclass(part, ComponentConfig):
                for name, component in part.base.choices.items():
                    nested.append((component.Config, f"{part.base.group}={name}"))
            elif isinstance(part, type) and dataclasses.is_dataclass(part):
                nested.append((part, owner))
            for inner_schema, inner_owner in nested:
                for key, choice in key_owners(inner_schema, inner_owner).items():
                    owners[f"{field.name}.{key}"] = choice
    return owners
