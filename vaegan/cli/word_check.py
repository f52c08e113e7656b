"""Check the words of the command line before Hydra, whose own error messages would be unclear."""

from __future__ import annotations

import os
from collections.abc import Sequence

from vaegan.cli.hydra_errors import known_keys
from vaegan.cli.path_words import parse, read_path
from vaegan.cli.suggestions import DEFAULT_STAGE, matching_keys, selected_stage, suggest_key
from vaegan.config import GROUPS, did_you_mean
from vaegan.runtime.paths import quote_for_hydra, shell_word
from vaegan.stages.stage_table import STAGES

SELECTED_ONCE = ("stage", "experiment", *GROUPS)
OPTIONS = {  # Hydra's options; True if the next word is the value of the option
    **dict.fromkeys(
        ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), False
    ),
    **dict.fromkeys(("--multirun", "-m", "--info", "-i"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-path", "-cp"), True),
    **dict.fromkeys(("--config-name", "-cn", "--config-dir", "-cd"), True),
    **dict.fromkeys(("--experimental-rerun",), True),
}
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
    previous = ""
    for word in words:
        if word.startswith("-"):
            check_option(word)
        elif OPTIONS.get(previous):
            check_option_value(previous, word)
        elif previous in ("--info", "-i") and word in INFO_CHOICES:
            pass
        else:
            check_setting(word, stage, keys)
        previous = word
    check_repeated(words)


def check_option(word: str) -> None:
    """Check that an option is one of Hydra's."""
    option = word.partition("=")[0]
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
    if option in ("--config-dir", "-cd") and not os.path.isdir(value):
        raise ValueError(f"{option} {value} is not a folder")


def check_setting(word: str, stage: str, keys: Sequence[str]) -> None:
    """Check a word that should be a setting `KEY=VALUE`."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if not equals:
        if not key.startswith("~"):
            raise ValueError(explain_bare_word(word))
        return
    if not name.strip() or name != name.strip():
        raise ValueError(f"{word!r}: write KEY=VALUE without spaces around the equals sign")
    if key.startswith("+") and name in SELECTED_ONCE:
        raise ValueError(f"write {name}={value} without +, because {name} has a default")
    if name in GROUPS and value == "null":
        raise ValueError(
            f"{word}: to use the default, omit {name}; if an experiment selects it, write ~{name}"
        )
    if name == "dataset" and is_path(value):
        root = shell_word("dataset.root", value)
        raise ValueError(
            f"dataset={value} is a path, not the name of a data set; for a folder of images, write "
            f"dataset=image_folder {root}"
        )
    check_section(name, value, stage, keys)
    if parse(value) is None:
        raise ValueError(
            f"{word}: the value has characters with a special meaning; to use it as it is, write "
            f"{shell_word(key, quote_for_hydra(value))}"
        )


def check_section(name: str, value: str, stage: str, keys: Sequence[str]) -> None:
    """Check that a key is not a section of settings, such as `trainer`."""
    nested = [key for key in keys if key.startswith(f"{name}.")]
    if nested and name not in GROUPS and not value.startswith("{"):
        start = f"{name}.accelerator={value}" if name.endswith("trainer") else f"{nested[0]}=VALUE"
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
    near = suggest_key(word, known_keys(DEFAULT_STAGE))
    return f"{word} is not a setting: settings are written as KEY=VALUE.{near}"
