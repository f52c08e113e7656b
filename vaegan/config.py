"""Registry of components: builds objects from names in a command line, YAML file or checkpoint.

An exchangeable part (a likelihood, a prior, a data set) is a `Component`. Its base class defines a
group, and each subclass with a nested `Config` dataclass is a choice of that group. Names are only
looked up among the registered choices, never imported: no config or checkpoint can execute code.

    class Prior(Component, nn.Module, ABC, group="prior"):
        @dataclass
        class Config(ComponentConfig): ...

    class StandardNormal(Prior):            # prior=standard_normal
        @dataclass
        class Config(Prior.Config):
            name: str = "standard_normal"

        def __init__(self, config: Config, latent_dim: int, image_shape: ImageShape) -> None: ...
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar, TypeVar, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")
GROUPS: dict[str, type[Component]] = {}
MAX_LIST_LENGTH = 1000


class Component:
    """Exchangeable part that a config selects by name.

    A subclass that declares a `Config` with a `name` is registered as a choice of its group. If
    the same class is declared again, such as by rerunning a notebook cell, it replaces the first.

    Raises:
        ValueError: Another class of the group has the same `name`.
    """

    group: ClassVar[str]
    choices: ClassVar[dict[str, type[Any]]]
    Config: ClassVar[type[ComponentConfig]]

    def __init_subclass__(cls, group: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if group is not None:
            cls.group = group
            cls.choices = {}
            cls.Config.base = cls
            GROUPS[group] = cls
        elif "Config" in cls.__dict__ and cls.Config.name != MISSING:
            name = cls.Config.name
            other = cls.choices.get(name, cls)
            if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"two classes are registered as {cls.group}={name}: {other.__name__} and "
                    f"{cls.__name__}; rename one of them"
                )
            cls.Config.component = cls
            cls.choices[name] = cls


@dataclass
class ComponentConfig:
    """Settings of one component; `name` is the name of the choice."""

    base: ClassVar[type[Component]]
    component: ClassVar[type[Any]]
    name: str = MISSING  # name of the choice; fixed by the class

    def __post_init__(self) -> None:
        if self.name != type(self).name:
            raise ValueError(
                f"name is fixed to {type(self).name!r}; to select another component, "
                f"write {self.base.group}={self.name}"
            )

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Construct the component from this config and the given arguments."""
        return self.component(self, *args, **kwargs)


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Check a condition on a setting.

    Raises:
        ValueError: The condition is false. `from_plain` prepends the names of the enclosing parts
            to the key, so that the message names the key as the user typed it.
    """
    if not condition:
        raise ValueError(f"{key} must be {expected}; got {got!r}")


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ' Did you mean x?' for the closest known word, or '' if none is close.

    Args:
        word: The word.
        known: Known words.
        cutoff: Smallest similarity of a close word: 0 for any word, 1 for the same word.
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean {matches[0]}?" if matches else ""


def to_plain(config: Any) -> dict[str, Any]:
    """Convert a config to nested dicts, lists, numbers and strings, for a checkpoint."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    """Convert the value of a field; OmegaConf does the same, but takes 100 times as long."""
    if dataclasses.is_dataclass(value):
        return to_plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.name if isinstance(value, Enum) else value


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to one dict with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def from_plain(schema: type[T], plain: Mapping[str, Any], key: str = "") -> T:
    """Rebuild a config from the output of `to_plain`.

    Args:
        schema: Dataclass to build. For the base config of a component group, `plain["name"]`
            selects the choice.
        plain: Nested dicts of numbers, strings and lists.
        key: Dotted key of this part in the whole config, for error messages.

    Raises:
        ValueError: A choice or a key is unknown, or a value is out of range or not plain data.
    """
    got = plain if isinstance(plain, str) else type(plain).__name__
    require(isinstance(plain, Mapping), key or schema.__name__, "a mapping of settings", got)
    if issubclass(schema, ComponentConfig):
        schema = cast(type[T], _chosen_config(schema, plain.get("name"), key))
    hints, leaf_type, defaults = _fields_of(cast(Any, schema))
    values = {}
    for name, value in ({name: make() for name, make in defaults.items()} | {**plain}).items():
        path = f"{key}.{name}".lstrip(".")
        if name not in hints:
            known = sorted(field.name for field in dataclasses.fields(cast(Any, schema)))
            near = did_you_mean(str(name), known)
            raise ValueError(f"unknown key {path}.{near} Known keys: {', '.join(known)}")
        values[name] = _nested_config(value, hints[name], path)
    # OmegaConf only converts and checks the values that are no configs. Nested configs are already
    # converted, and converting them again at each level would take most of the time.
    parts = {name: values.pop(name) for name in list(values) if _dataclass_of(hints[name])}
    try:
        schema(**values, **parts)  # whose messages are clearer than those of OmegaConf
        leaves: Any = OmegaConf.to_object(OmegaConf.structured(leaf_type(**values)))
        return schema(**vars(leaves), **parts)
    except (ValueError, TypeError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}.{error}".lstrip(".")) from error


def _nested_config(value: Any, hint: Any, key: str) -> Any:
    """Check the value of a field; if it holds the settings of a config, return the config."""
    nested = _dataclass_of(hint)
    if nested is None:
        check_plain(value, key)
    elif dataclasses.is_dataclass(value):  # a default
        value = to_plain(value)
    if value == MISSING:
        raise ValueError(f"{key} must be set, such as {key}=VALUE")
    if nested is None or (value is None and type(None) in typing.get_args(hint)):
        return value
    config = from_plain(nested, value, key)
    require(isinstance(config, nested), key, f"a {nested.__qualname__}", type(config).__qualname__)
    return config


@functools.cache
def _fields_of(
    schema: type[Any],
) -> tuple[dict[str, Any], type[Any], dict[str, Callable[[], Any]]]:
    """Return the types of a config's fields, and how to build them.

    Returns:
        Types by name, a dataclass of the fields that are no configs, and functions that return the
        defaults of the fields that are configs.
    """
    hints = typing.get_type_hints(schema)
    leaves, defaults = [], {}
    for field in dataclasses.fields(schema):
        default, factory = field.default, field.default_factory
        if _dataclass_of(hints[field.name]) is None:
            copy = dataclasses.field(default=default, default_factory=factory)
            leaves.append((field.name, hints[field.name], copy))
        elif factory is not dataclasses.MISSING:
            defaults[field.name] = factory
        elif default is not dataclasses.MISSING:
            defaults[field.name] = functools.partial(lambda value: value, default)
    return hints, dataclasses.make_dataclass(schema.__name__, leaves, kw_only=True), defaults


def check_plain(value: object, key: str) -> None:
    """Check that a value is plain data (`is_plain`), and if it is a number, that torch can hold it.

    Raises:
        ValueError: It is not plain data, or infinite, NaN, or an integer of more than 64 bits.
    """
    got = value if isinstance(value, str) else type(value).__name__
    expected = (
        "plain data, without ${...}: a number, string, boolean, null, or a list of at most "
        f"{MAX_LIST_LENGTH} of them"
    )
    require(is_plain(value), key, expected, got)
    if isinstance(value, float):
        require(math.isfinite(value), key, "finite", value)
    if isinstance(value, int):
        require(-(2**63) <= value < 2**63, key, "an integer of at most 64 bits", value)


def is_plain(value: object) -> bool:
    """True for a scalar or a short list of scalars, without ${...}.

    OmegaConf would resolve interpolations such as ${oc.env:HOME}. Longer or nested lists are not
    needed in any config, and an untrusted file could use them to make processing expensive.
    """
    if isinstance(value, list):
        is_short = len(value) <= MAX_LIST_LENGTH
        return is_short and not any(isinstance(item, list) or not is_plain(item) for item in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or isinstance(value, bool | int | float)


def _chosen_config(schema: type[ComponentConfig], name: Any, key: str) -> type[ComponentConfig]:
    """Return the config class of the choice with a name."""
    choices = schema.base.choices
    if not isinstance(name, str) or name not in choices:
        group = schema.base.group
        raise ValueError(
            f"{key or group}: unknown {group} {name!r}; known: {', '.join(sorted(choices))}. "
            "To use your own component, load its module with plugins=[MODULE]"
        )
    return choices[name].Config


def _dataclass_of(hint: Any) -> Any:
    """Return the dataclass in a type such as `Config | None`; None if there is no dataclass."""
    types = (hint, *typing.get_args(hint))
    return next((part for part in types if dataclasses.is_dataclass(part)), None)
