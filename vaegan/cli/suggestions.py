"""Suggestions for a command line that does not compose: the nearest known key or choice."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence

from vaegan.config import GROUPS, ComponentConfig, did_you_mean
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES

HYDRA_PLUGINS = ("optuna", "joblib", "ray", "submitit_local", "submitit_slurm")  # of extra `sweep`
DEFAULT_STAGE = "pipeline"


def explain(error: Exception, command: Sequence[str]) -> str:
    """Return what is wrong with a command line, with the nearest known key or choice."""
    cause = "" if error.__cause__ is None else str(error.__cause__)
    message = str(error) if cause in str(error) else f"{error}\n{cause}"
    plugin = re.search(r"Could not (?:find|load) '(hydra/(?:sweeper|launcher))/(\w+)'", message)
    if plugin and plugin[2] in HYDRA_PLUGINS:
        return (
            f"{plugin[1]}={plugin[2]} needs a plugin that is not installed: "
            "pip install 'vaegan[sweep]'"
        )
    if choice := re.search(r"Could not find '([\w/]+)/([^/']+)'", message):
        known = re.findall(r"^\t(\w+)$", message, re.MULTILINE)
        near = did_you_mean(choice[2], known)
        return (
            f"{choice[1]}={choice[2]}: no such choice.{near} Known: {', '.join(known)}. "
            "One of your own is known once its module is imported: plugins=[MODULE]"
        )
    if override := re.search(r"Could not override '([^']+)'", message):
        return explain_unknown_key(override[1], stage_word(command))
    return message


def explain_unknown_key(key: str, stage: str) -> str:
    """Return what is wrong with a key that the composed config does not have."""
    owners = key_owners(config_of(stage))
    if key in owners:
        return f"{key} belongs to another choice: {owners[key]}"
    same_ending = [known for known in owners if known.endswith(f".{key}")]
    near = did_you_mean(key, owners)
    if same_ending:
        near = f" Did you mean {' or '.join(same_ending[:3])}?"
    return (
        f"unknown key {key} with stage={stage}.{near} "
        f"python train.py stage={stage} --help lists all"
    )


def explain_null_component(command: Sequence[str]) -> str:
    """Return what is wrong with a command that sets a key of a component it does not choose."""
    stage = stage_word(command)
    words = [word.split("=")[0].lstrip("+") for word in command]
    owners = key_owners(config_of(stage))
    for word in words:
        is_of_group = word.split(".")[0] in set(GROUPS) - set(words)
        if is_of_group and word not in owners:
            near = did_you_mean(word, owners)
            return f"unknown key {word}, and its component is not chosen.{near}"
        group = owners.get(word, "").split("=")[0]
        if group and group not in words:
            key = word.rpartition(".")[2]
            choices = [
                name
                for name, component in GROUPS[group].choices.items()
                if key in component.Config.__dataclass_fields__
            ]
            known = ", ".join(choices)
            return f"{word} is set, but no {group}: write {group}=... too, one of {known}"
    return (
        "a key is set of a component that is null; "
        f"python train.py stage={stage} --help shows which ones are"
    )


def stage_word(command: Sequence[str]) -> str:
    """Return the stage that a command line names."""
    stages = [word.removeprefix("stage=") for word in command if word.startswith("stage=")]
    return stages[0] if stages else DEFAULT_STAGE


def config_of(stage: str) -> type[RunConfig]:
    """Return the config class of a stage, or of the default one if it is unknown."""
    return STAGES.get(stage, STAGES[DEFAULT_STAGE]).config


def key_owners(schema: type, owner: str = "") -> dict[str, str]:
    """Return every dotted key of a schema, with the choice that it belongs to ("" for none).

    The keys of all choices of a group are included.
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
