"""Explain why Hydra cannot compose a command line."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vaegan.cli.suggestions import (
    ALWAYS_KNOWN,
    DEFAULT_STAGE,
    explain_unknown_choice,
    explain_unknown_key,
    owner_choices,
    selected_stage,
    suggest_key,
)
from vaegan.config import GROUPS, ComponentConfig, did_you_mean
from vaegan.runtime.bundled_files import bundled_folder
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
NULL_ACCESS = "Unexpected type for root: NoneType"  # OmegaConf's error for a key below a null value
TYPE_NAMES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}


def explain(error: Exception, args: Sequence[str]) -> str | None:
    """Return a readable message for an error of Hydra or OmegaConf; None for any other error."""
    if isinstance(error, AssertionError) and NULL_ACCESS in str(error):
        return explain_null_component(args)
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    cause = "" if error.__cause__ is None else str(error.__cause__)
    message = str(error) if cause in str(error) else f"{error}\n{cause}"
    plugin = re.search(r"Could not (?:find|load) '(hydra/(?:sweeper|launcher))/(\w+)'", message)
    if plugin and plugin[2] in HYDRA_PLUGINS:
        extra = HYDRA_PLUGINS[plugin[2]]
        return (
            f"{plugin[1]}={plugin[2]} needs a plugin that is not installed. Install it with: "
            f"uv sync --extra {extra}, or pip install '.[{extra}]'"
        )
    if choice := re.search(r"Could not (?:find|load) '([\w/]+)/([^/']+)'", message):
        return explain_unknown_choice(choice[1], choice[2], known_choices(choice[1], message))
    if config_file := re.match(r"In '(\w+)/([^']+)': .*\n", message):
        return explain_config_file(config_file[1], config_file[2], message[config_file.end() :])
    if override := re.search(r"Could not override '([^']+)'", message):
        inner = re.search(r"full_key: (\S+)", message)  # of a value such as {lr:1}
        key = inner[1] if inner and inner[1].startswith(override[1]) else override[1]
        return explain_missing_key(key, selected_stage(args))
    if ambiguous := re.search(r"Ambiguous value for argument '(.*?)'\n", message):
        return explain_comma(ambiguous[1])
    if existing := re.search(r"An item is already at '([^']+)'", message):
        return f"{existing[1]} is a known key: write it without +"
    if missing := re.search(r"Could not delete from config\. '([^']+)' does not exist", message):
        return explain_missing_key(missing[1], selected_stage(args))
    return explain_value(message, cause or message)


def known_choices(group: str, message: str) -> list[str]:
    """Return the names of a group, which Hydra's message lists unless the command has a list."""
    if group in GROUPS:
        return sorted(GROUPS[group].choices)
    listed = re.findall(r"^\t(\w+)$", message, re.MULTILINE)
    return listed or sorted(path.stem for path in bundled_folder("conf").glob(f"{group}/*.yaml"))


def explain_missing_key(key: str, stage: str) -> str:
    """Return the message for a key that the composed config of a stage does not have."""
    keys = {name: key_owners(entry.config) for name, entry in STAGES.items()}
    return explain_unknown_key(key, stage, keys)


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
    if re.search("is not Optional|NoneType is not a subclass", reason):
        return f"{key[1]} must not be null; to use the default, omit it"
    if re.search("is not a ListConfig|Cannot merge DictConfig with ListConfig", reason):
        return f"{key[1]} must be a list, such as '{key[1]}=[VALUE]'"
    typed = re.search(r"(?:could not be converted to|is not a valid) (\w+)", reason)
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
        group, names = owner_choices(owners.get(key) or [""])
        if group and group not in keys:
            known = ", ".join(names)
            return f"{key} is set, but no {group} is selected; add {group}=..., one of {known}"
    return (
        "the command sets a key of a component that is null. To see which components are null: "
        f"python train.py stage={stage} --help"
    )


def known_keys(stage: str) -> list[str]:
    """Return all keys that a command with a stage can set."""
    return [*key_owners(stage_config(stage)), *ALWAYS_KNOWN]


def stage_config(stage: str) -> type[RunConfig]:
    """Return the config class of a stage, or of the default stage if the name is unknown."""
    return STAGES.get(stage, STAGES[DEFAULT_STAGE]).config


def key_owners(schema: type, owner: str = "") -> dict[str, list[str]]:
    """Return all dotted keys of a schema, with the choices that have each of them.

    The keys of all choices of a group are included: {"prior.hidden_dim": ["prior=flow"]}. The list
    is empty for keys outside components. `Settings.key_owners` reads the same from source files.
    """
    hints = typing.get_type_hints(schema)
    owners: dict[str, list[str]] = {}
    for field in dataclasses.fields(schema):
        owners[field.name] = [owner] if owner else []
        for part in (hints[field.name], *typing.get_args(hints[field.name])):
            nested: list[tuple[type, str]] = []
            if isinstance(part, type) and issubclass(part, ComponentConfig):
                for name, component in sorted(part.base.choices.items()):
                    nested.append((component.Config, f"{part.base.group}={name}"))
            elif isinstance(part, type) and dataclasses.is_dataclass(part):
                nested.append((part, owner))
            for inner_schema, inner_owner in nested:
                for key, choices in key_owners(inner_schema, inner_owner).items():
                    owners.setdefault(f"{field.name}.{key}", []).extend(choices)
    return owners
