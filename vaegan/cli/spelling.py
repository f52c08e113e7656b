"""Find misspelled keys and choices before torch is imported, which takes seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vaegan.cli.settings import PACKAGE, Settings

FIELD = re.compile(r"^ +(\w+): ", re.MULTILINE)  # of a config dataclass
QUOTED = re.compile(r'"(\w+)"')
GROUP = re.compile(r'group="(\w+)"')
# Keys that add settings from other files or modules, and groups in conf/.
SKIPPED_KEYS = ("plugins", "experiment", "resume", "arm")


def check_spelling(words: Sequence[str]) -> None:
    """Check the keys and the choices of a command line against the source files.

    Commands with options, plugins, experiments or several values are left to Hydra.

    Raises:
        ValueError: A key, a stage or a component does not exist. The message suggests a known one.
    """
    pairs = [(key, value) for key, _, value in (word.partition("=") for word in words)]
    is_plain = all(re.fullmatch(r"[A-Za-z][\w.]*=.*", word, re.DOTALL) for word in words)
    if not is_plain or any(key in SKIPPED_KEYS or key.startswith("hydra") for key, _ in pairs):
        return
    if not may_be_misspelled(pairs):
        return
    from vaegan.cli.key_suggestions import (
        explain_unknown_choice,
        selected_stage,
        suggest_key,
        unknown_key,
    )

    settings = Settings()
    choices = {name: [one.name for one in group.choices] for name, group in settings.groups.items()}
    del choices["dataset"]  # its value may be a folder
    choices["stage"] = sorted(settings.stages)
    for key, value in pairs:
        if key in choices and re.fullmatch(r"\w+", value) and value not in [*choices[key], "null"]:
            raise ValueError(explain_unknown_choice(key, value, choices[key]))
    keys = {stage: settings.keys(stage) for stage in settings.stages}
    stage = selected_stage(words)
    for key, _ in pairs:
        is_known = any(f"{name}.".startswith(f"{key}.") for one in keys.values() for name in one)
        if not is_known:
            raise ValueError(unknown_key(key, stage, suggest_key(key, keys[stage])))


def may_be_misspelled(pairs: Sequence[tuple[str, str]]) -> bool:
    """True if a key or a choice contains a name that no source file has.

    This takes milliseconds, while reading all settings takes half a second.
    """
    text = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    groups = {"stage", *GROUP.findall(text)}
    choices = {"null", *QUOTED.findall(text)}
    fields = {*FIELD.findall(text), *groups}
    return any(
        not fields.issuperset(key.split(".")) or (key in groups and value not in choices)
        for key, value in pairs
    )
