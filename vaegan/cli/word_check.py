"""Check the words of the command line before Hydra, whose own error messages would be unclear."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import pairwise

from vaegan.cli.hydra_errors import explain_missing_key, known_keys
from vaegan.cli.path_words import parse, read_path
from vaegan.cli.plugins import CONFIG_DIR_OPTIONS
from vaegan.cli.suggestions import DEFAULT_STAGE, matching_keys, selected_stage, suggest_key
from vaegan.config import GROUPS, did_you_mean
from vaegan.runtime.paths import quote_for_hydra, shell_word
from vaegan.stages.stage_table import STAGES

SELECTED_ONCE = ("stage", "experiment", *GROUPS)
NEVER_EMPTY = {  # keys that neither null nor an empty value selects anything for: what to write
    "stage": "write stage=NAME, or omit it to train a VAE and then a GAN",
    "experiment": "to use no experiment, omit experiment",
    "arm": "write arm=NAME, or omit arm",
    "resume": "write resume=FOLDER, resume=last, resume=true or resume=false",
    "hydra.run.dir": "write hydra.run.dir=FOLDER, or omit it for a new folder below outputs/",
    "hydra.sweep.dir": "write hydra.sweep.dir=FOLDER, or omit it for a new folder below multirun/",
    "hydra/launcher": "to run the jobs one after another, omit hydra/launcher",
    "hydra/sweeper": "to run all combinations of the values, omit hydra/sweeper",
    **{
        group: f"to use the default, omit {group}; if an experiment selects it, write ~{group}"
        for group in GROUPS
    },
}
OPTIONS = {  # Hydra's options; True if the next word is the value of the option
    **dict.fromkeys(
        ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), False
    ),
    **dict.fromkeys(("--multirun", "-m", "--info", "-i"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp"), True),
    **dict.fromkeys(("--config-name", "-cn", "--config-dir", "-cd"), True),
    **dict.fromkeys(("--experimental-rerun",), True),
}
FOLDER_OPTIONS = ("--config-path", "-cp", *CONFIG_DIR_OPTIONS)
KEY = re.compile(r"\+{0,2}\w[\w@./$-]*")
CFG_CHOICES = ("job", "hydra", "all")
INFO_CHOICES = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def check_words(words: Sequence[str]) -> None:
    """Check the form of each word, before Hydra parses the command line.

    Raises:
        ValueError: A word is not a setting, or selects something that cannot be selected this way.
            The message shows what to write instead.
    """
    stage = selected_stage(words)
    keys = known_keys(stage)
    for previous, word in pairwise(["", *words]):
        if word.startswith("-"):
            check_option(word)
        elif OPTIONS.get(previous):
            check_option_value(previous, word)
        elif not is_of_option(word, previous):
            check_setting(word, stage, keys)
    check_repeated(words)


def move_options_to_end(words: Sequence[str]) -> list[str]:
    """Return a command line with all options after the settings, as Hydra's parser requires."""
    pairs = list(pairwise(["", *words]))
    settings = [word for previous, word in pairs if not is_of_option(word, previous)]
    return [*settings, *(word for previous, word in pairs if is_of_option(word, previous))]


def is_of_option(word: str, previous: str) -> bool:
    """True if a word is an option of Hydra, or the value of the option before it."""
    is_info = previous in ("--info", "-i") and word in INFO_CHOICES
    return word.startswith("-") or OPTIONS.get(previous, False) or is_info


def check_option(word: str) -> None:
    """Check that an option is one of Hydra's."""
    option, equals, value = word.partition("=")
    if equals:
        check_option_value(option, value)
    if option not in OPTIONS:
        near = did_you_mean(option, OPTIONS)
        if keys := matching_keys(option.lstrip("-").replace("-", "_"), known_keys(DEFAULT_STAGE)):
            near = f" Did you mean {' or '.join(keys[:3])}?"
        raise ValueError(
            f"unknown option {option}: settings are written without dashes, as KEY=VALUE.{near}"
        )


def check_option_value(option: str, value: str) -> None:
    """Check the value of an option if Hydra's own message would be unclear."""
    if option in ("--cfg", "-c") and value not in CFG_CHOICES:
        raise ValueError(f"{option} {value}: expected one of {', '.join(CFG_CHOICES)}")
    if option in FOLDER_OPTIONS and not os.path.isdir(value):
        raise ValueError(f"{option} {value} is not a folder")


def check_setting(word: str, stage: str, keys: Sequence[str]) -> None:
    """Check a word that should be a setting `KEY=VALUE`."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if key.startswith("~"):
        check_removal(word, name, keys)
        return
    if not equals:
        raise ValueError(explain_bare_word(word))
    if not name.strip() or name != name.strip():
        raise ValueError(f"{word!r}: write KEY=VALUE without spaces around the equals sign")
    if key.startswith("+") and name in SELECTED_ONCE:
        raise ValueError(f"write {name}={value} without +, because {name} has a default")
    values = [part.strip(" '\"").lower() for part in value.split(",")]  # several in a sweep
    if name in NEVER_EMPTY and ("" in values or "null" in values):
        raise ValueError(f"{word}: {NEVER_EMPTY[name]}")
    if name in ("stage", *GROUPS) and value.startswith("["):
        choices = value.strip("[] ")
        raise ValueError(f"{word}: select one {name}; for a sweep, write -m {name}={choices}")
    if name == "dataset" and is_path(value):
        root = shell_word("dataset.root", value)
        raise ValueError(
            f"dataset={value} is a path, not the name of a data set; for a folder of images, write "
            f"dataset=image_folder {root}"
        )
    check_section(name, value, stage, keys)
    if KEY.fullmatch(key) is None:
        raise ValueError(explain_missing_key(name, stage))
    if parse(value) is None:
        raise ValueError(
            f"{word}: the value has characters with a special meaning; to use it as it is, write "
            f"{shell_word(key, quote_for_hydra(value))}"
        )


def check_removal(word: str, name: str, keys: Sequence[str]) -> None:
    """Check a word `~NAME`, which removes a component that an experiment selects."""
    if name == "stage":
        raise ValueError(f"{word}: {NEVER_EMPTY[name]}")
    if name in keys and name not in (*GROUPS, "experiment"):
        raise ValueError(
            f"{word}: only a component can be removed; to use the default, omit {name}"
        )


def check_section(name: str, value: str, stage: str, keys: Sequence[str]) -> None:
    """Check that a key is not a section of settings, such as `trainer`."""
    nested = [key for key in keys if key.startswith(f"{name}.")]
    if nested and name not in GROUPS and not value.startswith("{"):
        is_device = name.endswith("trainer") and value not in ("", "null")
        start = f"{name}.accelerator={value}" if is_device else f"{nested[0]}=VALUE"
        preset = " For large networks on a GPU, add experiment=gpu." if value == "gpu" else ""
        raise ValueError(
            f"{name} is a section of settings, not a setting; write one of its keys, such as "
            f"{start}.{preset} To list them: python train.py stage={stage} --help {name}."
        )


def check_repeated(words: Sequence[str]) -> None:
    """Check that each component and the stage are selected once."""
    for name in SELECTED_ONCE:
        found = [word for word in words if word.startswith(f"{name}=")]
        if len(found) > 1:
            raise ValueError(
                f"{name} is set {len(found)} times: {' '.join(found)}; keep one of them"
            )


def is_path(value: str) -> bool:
    """True if a value is a path rather than a name."""
    path = read_path(f"key={value}")
    return "/" in path or "\\" in path or path.startswith(("~", "."))


def explain_bare_word(word: str) -> str:
    """Return the message for a word without `=`."""
    if word.lower() in STAGES:
        return f"{word}: to select a stage, write stage={word.lower()}"
    for group, base in GROUPS.items():
        if word in base.choices:
            return f"{word}: to select this component, write {group}={word}"
    key, colon, value = word.partition(":")
    if colon:
        return f"{word}: write KEY=VALUE with an equals sign: {key}={value.strip() or 'VALUE'}"
    if os.path.exists(os.path.expanduser(word)):
        root = shell_word("dataset.root", word)
        return f"{word} is not a setting; for a folder of images, write dataset=image_folder {root}"
    keys = known_keys(DEFAULT_STAGE)
    if word in keys:
        return f"{word} has no value: write {word}=VALUE, without spaces"
    near = suggest_key(word, keys)
    return f"{word or repr(word)} is not a setting: settings are written as KEY=VALUE.{near}"
