"""Quote paths on the command line that Hydra's override grammar would not read as typed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, ValueType
from hydra.errors import HydraException

from vaegan.cli.settings import PATH_KEYS
from vaegan.runtime.paths import quote_for_hydra

LIST_KEY = "runs"
COMMA_SEPARATED = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^,])+""")


def quote_paths(words: Sequence[str]) -> list[str]:
    """Return a command line in which Hydra reads every path as it was typed.

    The rules for words `KEY=PATH` whose key is in PATH_KEYS:

    - A path that Hydra reads as the same text, as null, true or false, as a quoted string, as an
      interpolation `${...}`, or as a function such as `choice(a,b)`, is not changed.
    - Any other path is put in quotes: one that Hydra cannot parse (`~/images`, `lr=0.1`, `Übung`,
      `a (1)`) and one that it would change, such as the date 2026_01_31, to a number.
    - A comma is part of the path. It separates paths in the list `runs`, and in a sweep: with -m,
      --multirun, hydra.mode or an experiment, which may be a sweep.
    """
    is_sweep = any(
        word in ("-m", "--multirun") or word.lstrip("+").startswith(("hydra.mode=", "experiment="))
        for word in words
    )
    return [quote_path_word(word, is_sweep) for word in words]


def quote_path_word(word: str, is_sweep: bool) -> str:
    """Return a word of the command line with its path quoted; see `quote_paths`."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if name not in PATH_KEYS or not equals:
        return word
    if name == LIST_KEY:
        return f"{key}={quote_list(value, is_sweep)}"
    if is_literal(value):
        return word
    if is_sweep:
        return f"{key}={','.join(quote_items(value))}"
    return f"{key}={quote_for_hydra(value, keep_interpolations=True)}"


def quote_list(value: str, is_sweep: bool) -> str:
    """Return a list of paths, or one path, as a list of quoted paths."""
    override = parse(value)
    is_list = override is not None and isinstance(override.value(), list | type(None))
    if not value or is_list or (is_sweep and "[" in value):
        return value
    if is_sweep and "," in value:
        return ",".join(f"[{item}]" for item in quote_items(value))
    if value.startswith("[") and value.endswith("]"):
        value = value[1:-1]
    return f"[{','.join(quote_items(value))}]"


def quote_items(text: str) -> list[str]:
    """Split a text at its commas, except those in quotes, and quote the items that need it."""
    items = [item.strip() for item in COMMA_SEPARATED.findall(text)]
    return [
        item if is_literal(item) else quote_for_hydra(item, keep_interpolations=True)
        for item in items
    ]


def is_literal(value: str) -> bool:
    """True if Hydra reads a value as the same text, or if the value uses Hydra's own syntax."""
    override = parse(value)
    if override is None:
        return False
    if override.is_sweep_override():
        return override.value_type != ValueType.SIMPLE_CHOICE_SWEEP
    parsed = override.value()
    if isinstance(parsed, str):
        is_quoted = isinstance(override._value, QuotedString)
        is_function = re.fullmatch(r"\w+\(.*\)", value) is not None
        return is_quoted or is_function or "\\" in value or parsed == value
    return parsed is None or isinstance(parsed, bool)


def parse(value: str) -> Override | None:
    """Parse a value with Hydra's grammar; None if it cannot be parsed."""
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None


def read_path(word: str) -> str:
    """Return the path in a word `KEY=PATH` as Hydra reads it, without quotes."""
    return read_paths(word)[0]


def read_paths(word: str) -> list[str]:
    """Return the path in a word `KEY=PATH`, or the paths of a sweep, as Hydra reads them."""
    value = word.partition("=")[2]
    override = parse(value)
    if override is None:
        return [value]
    if override.is_sweep_override():
        return [read_path(f"key={item}") for item in override.sweep_string_iterator()]
    return [str(override.value())]
