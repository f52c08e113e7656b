"""Explain a command line that does not compose, and suggest the nearest known key or choice."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence

from vaegan.config import GROUPS, ComponentConfig, did_you_mean
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES

HYDRA_PLUGINS = ("optuna", "joblib", "ray", "submitit_local", "submitit_slurm")  # extra `sweep`
DEFAULT_STAGE = "pipeline"


def explain(error: Exception, args: Sequence[str]) -> str:
    """Return a readable message for an error of Hydra or OmegaConf."""
    cause = "" if error.__cause__ is None else str(error.__cause__)
    message = str(error) if cause in str(error) else f"{error}\n{cause}"
    plugin = re.search(r"Could not (?:find|load) '(hydra/(?:sweeper|launcher))/(\w+)'", message)
    if plugin and plugin[2] in HYDRA_PLUGINS:
        return (
            f"{plugin[1]}={plugin[2]} needs a plugin that is not installed. Install it with: "
            "uv sync --extra sweep, or pip install '.[sweep]'"
        )
    if choice := re.search(r"Could not find '([\w/]+)/([^/']+)'", message):
        known = re.findall(r"^\t(\w+)$", message, re.MULTILINE)
        near = did_you_mean(choice[2], known)
        return (
            f"{choice[1]}={choice[2]} is not a known choice.{near} Known choices: "
            f"{', '.join(known)}. For a component of your own, add plugins=[MODULE]"
        )
    if override := re.search(r"Could not override '([^']+)'", message):
        return explain_unknown_key(override[1], selected_stage(args))
    return message


def explain_unknown_key(key: str, stage: str) -> str:
    """Return the message for a key that the composed config does not have."""
    owners = key_owners(stage_config(stage))
    if key in owners:
        return f"{key} is a key of {owners[key]}, which is not selected; select it or omit {key}"
    same_ending = [known for known in owners if known.endswith(f".{key}")]
    near = did_you_mean(key, owners)
    if same_ending:
        near = f" Did you mean {' or '.join(same_ending[:3])}?"
    return (
        f"unknown key {key} for stage={stage}.{near} "
        f"To list all keys: python train.py stage={stage} --help"
    )


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
            field_name = key.rpartition(".")[2]
            choices = [
                name
                for name, component in GROUPS[group].choices.items()
                if field_name in component.Config.__dataclass_fields__
            ]
            known = ", ".join(choices)
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
