"""Typed configs: how a name on the command line, in a YAML file or in a checkpoint becomes an object.

A part that can be exchanged (a likelihood, a prior, a data set) is a `Component`. Its base class opens a group, and
each subclass with a nested `Config` dataclass is a choice of that group. Names are looked up among the registered
choices and never imported, so that no config and no checkpoint can execute anything.

    class Prior(Component, nn.Module, ABC, group="prior"):
        @dataclass
        class Config(ComponentConfig): ...

    class StandardNormal(Prior):            # prior=standard_normal
        @dataclass
        class Config(Prior.Config):
            name: str = "standard_normal"
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")
GROUPS: dict[str, type[Component]] = {}


class Component:
    """A part that a config chooses by name. A subclass that declares a `Config` is a choice of its base's group."""

    group: ClassVar[str]
    choices: ClassVar[dict[str, type[Any]]]
    Config: ClassVar[type[ComponentConfig]]

    def __init_subclass__(cls, group: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if group is not None:
            cls.group, cls.choices = group, {}
            cls.Config.base = cls
            GROUPS[group] = cls
        elif "Config" in cls.__dict__ and cls.Config.name != MISSING:
            name = cls.Config.name
            if name in cls.choices:
                raise ValueError(
                    f"two classes are called {cls.group}={name}: {cls.choices[name].__name__} and {cls.__name__}"
                )
            cls.Config.component = cls
            cls.choices[name] = cls


@dataclass
class ComponentConfig:
    """The options of one component; `name` tells which."""

    base: ClassVar[type[Component]]
    component: ClassVar[type[Any]]
    name: str = MISSING

    def __post_init__(self) -> None:
        if self.name != type(self).name:
            raise ValueError(
                f"name is fixed to {type(self).name!r}; to choose another, write {self.base.group}={self.name}"
            )

    def build(self, *args: Any) -> Any:
        """Construct the component: its class is called with this config and the arguments."""
        return self.component(self, *args)


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Range check of a config.

    Raises:
        ValueError: if the condition is false, with the key, what is expected and what came. `from_plain` puts the
            names of the enclosing parts before the key, which makes it the one that the user typed.
    """
    if not condition:
        raise ValueError(f"{key} must be {expected}; got {got!r}")


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """' Did you mean x?' for the known word nearest to a misspelt one, else an empty string."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]}?" if matches else ""


def to_plain(config: Any) -> dict[str, Any]:
    """Config as nested dicts, lists, numbers and strings: what a checkpoint may hold."""
    structured = OmegaConf.structured(config)
    return cast(dict[str, Any], OmegaConf.to_container(structured, resolve=True, enum_to_str=True))


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def from_plain(schema: type[T], plain: Mapping[str, Any], where: str = "") -> T:
    """Rebuild a config from `to_plain`.

    Args:
        schema: The dataclass to build. For the config of a component group, `plain["name"]` picks the choice.
        plain: Nested dicts of numbers, strings, lists.
        where: Key of this part in the whole, for messages.

    Raises:
        ValueError: An unknown choice or key, a value that the config refuses, or one that is no plain data.
    """
    require(isinstance(plain, Mapping), where or schema.__name__, "settings by name", plain)
    if issubclass(schema, ComponentConfig):
        group, choices, name = schema.base.group, schema.base.choices, plain.get("name")
        if not isinstance(name, str) or name not in choices:
            raise ValueError(
                f"{where or group}: unknown {group} {name!r}; known: {', '.join(sorted(choices))}"
            )
        schema = cast(type[T], choices[name].Config)
    hints = typing.get_type_hints(schema)
    values = {}
    for key, value in plain.items():
        path = f"{where}.{key}".lstrip(".")
        if key not in hints:
            known = [field.name for field in dataclasses.fields(cast(Any, schema))]
            near = did_you_mean(str(key), known)
            raise ValueError(f"unknown key {path}.{near} Known here: {', '.join(sorted(known))}")
        nested = _dataclass_of(hints[key])
        require(nested is not None or is_plain(value), path, "plain data, without ${...}", value)
        require(value != MISSING, path, "set", "nothing")
        values[key] = value if nested is None or value is None else from_plain(nested, value, path)
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.structured(schema(**values))))
    except (ValueError, TypeError, OmegaConfBaseException) as error:
        raise ValueError(f"{where}.{error}".lstrip(".")) from error


def is_plain(value: object) -> bool:
    """Whether it is plain data, in which nothing would be looked up: OmegaConf resolves ${oc.env:HOME} and the like."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(is_plain, value))
    return (
        "${" not in value
        if isinstance(value, str)
        else value is None or isinstance(value, bool | int | float)
    )


def _dataclass_of(hint: Any) -> Any:
    """The dataclass in a type such as `Config` or `Config | None`, else None."""
    return next((t for t in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(t)), None)
