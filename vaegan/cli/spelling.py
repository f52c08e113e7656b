"""Find misspelled keys and choices before torch is imported, which takes seconds.

Only words that Hydra is certain to reject are reported, with the messages that explain Hydra's own
errors. Other commands are left to Hydra: those with options, lists, plugins, experiments or resumed
runs, with keys of another stage, and with groups that have files in conf/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from vaegan.cli.help import prefixed, sections_of
from vaegan.cli.settings import PACKAGE, Settings
from vaegan.cli.suggestions import (
    ALWAYS_KNOWN,
    KeyOwners,
    explain_unknown_choice,
    explain_unknown_key,
    selected_stage,
)

PLAIN_WORD = re.compile(r"([a-z]\w*(?:\.\w+)*)=([\w./+-]*)", re.ASCII | re.IGNORECASE)
NAME = re.compile(r"(?!(?:null|true|false|nan|inf)$)[a-z][\w-]*", re.ASCII | re.IGNORECASE)
LEFT_TO_HYDRA = {"plugins", "resume", "hydra.mode"}
FIELD = re.compile(r'^ +(\w+): (?:str = "(\w+)")?', re.MULTILINE)  # its name and its default
GROUP = re.compile(r'group="(\w+)"')
STAGE = re.compile(r'^ +"(\w+)": Stage\(', re.MULTILINE)


def check_spelling(words: Sequence[str], conf: Path) -> None:
    """Check the keys and the choices of a command line against the source files.

    Args:
        words: The command line.
        conf: Folder of the project's configs.

    Raises:
        ValueError: A key, a stage, an experiment or a component does not exist. The message
            suggests another.
    """
    matches = [PLAIN_WORD.fullmatch(word) for word in words]
    given = {match[1]: match[2] for match in matches if match}
    is_plain = len(given) == len(words) and LEFT_TO_HYDRA.isdisjoint(given)
    experiments = sorted(path.stem for path in conf.glob("experiment/*.yaml"))
    if not is_plain or given.get("experiment") in experiments or not has_new_name(given):
        return
    settings = Settings()
    keys = {name: settings.key_owners(stage.config) for name, stage in settings.stages.items()}
    stage = selected_stage(words)
    choices = {"stage": sorted(settings.stages)}
    for group in filter(settings.groups.get, keys.get(stage, {})):
        if not (conf / group).is_dir():
            choices[group] = [choice.name for choice in settings.groups[group].choices]
    choices["experiment"] = experiments
    for group, names in choices.items():  # in the order in which Hydra composes them
        if NAME.fullmatch(name := given.get(group, "")) and name not in names:
            raise ValueError(explain_unknown_choice(group, name, names))
    check_keys(given, stage, keys, settings, conf)


def check_keys(
    given: Mapping[str, str],
    stage: str,
    keys: Mapping[str, KeyOwners],
    settings: Settings,
    conf: Path,
) -> None:
    """Check that each key belongs to a stage.

    Args:
        given: Values by key.
        stage: Stage of the command.
        keys: Keys of each stage.
        settings: All settings.
        conf: Folder of the project's configs.

    Raises:
        ValueError: No stage has the key.
    """
    known = {*ALWAYS_KNOWN, *(key for owners in keys.values() for key in owners)}
    values = known - {key.rpartition(".")[0] for key in known}
    null = {
        setting.key
        for section in sections_of(settings, stage)
        for setting in prefixed(section, stage)
        if setting.default == "null" and setting.key not in given
    }
    for key in given:
        parts = list(accumulate(key.split("."), "{}.{}".format))
        is_below_value = not (values | null).isdisjoint(parts)
        if key not in known and not is_below_value and not (conf / parts[0]).is_dir():
            raise ValueError(explain_unknown_key(key, stage, keys))


def has_new_name(given: Mapping[str, str]) -> bool:
    """True if a key or a choice contains a name that no source file declares.

    This takes milliseconds, while reading all settings takes up to a second.

    Args:
        given: Values by key.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    groups = {"stage", "experiment", *GROUP.findall(text)}
    fields, defaults = map(set, zip(*FIELD.findall(text), strict=True))
    choices = defaults.union(STAGE.findall(text))
    return any(
        (key not in ALWAYS_KNOWN and not fields.union(groups).issuperset(key.split(".")))
        or (key in groups and value not in choices)
        for key, value in given.items()
    )
