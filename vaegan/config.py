"""The registry of components: how a name on the command line, in a YAML file or in a checkpoint
becomes an object.

A part that can be exchanged (a likelihood, a prior, a data set) is a `Component`. Its base class
opens a group, and each subclass with a nested `Config` dataclass is a choice of that group. Names
are looked up among the registered choices and never imported, so that no config and no checkpoint
can execute anything.

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
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, TypeVar, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

T = TypeVar("T")
GROUPS: dict[str, type[Component]] = {}
MAX_LIST_LENGTH = 1000


class Component:
    """A part that a config chooses by name.

    A subclass that declares a `Config` with a name is a choice of its base's group.

    Raises:
        ValueError: On declaration of a second class with the same name in a group.
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
            if name in cls.choices:
                other = cls.choices[name].__name__
                raise ValueError(
                    f"two classes are called {cls.group}={name}: {other} and {cls.__name__}"
                )
            cls.Config.component = cls
            cls.choices[name] = cls


@dataclass
class ComponentConfig:
    """Settings of one component. `name` is that of the choice."""

    base: ClassVar[type[Component]]
    component: ClassVar[type[Any]]
    name: str = MISSING

    def __post_init__(self) -> None:
        if self.name != type(self).name:
            raise ValueError(
                f"name is fixed to {type(self).name!r}; to choose another, "
                f"write {self.base.group}={self.name}"
            )

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Construct the component: its class is called with this config and the arguments."""
        return self.component(self, *args, **kwargs)


def require(condition: bool, key: str, expected: str, got: object) -> None:
    """Check the range of a setting.

    Raises:
        ValueError: The condition is false. `from_plain` prepends the names of the enclosing parts
            to the key, which makes it the one that the user typed.
    """
    if not condition:
        raise ValueError(f"{key} must be {expected}; got {got!r}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean x?' for the known word nearest to a misspelt one, or ''."""
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]}?" if matches else ""


def to_plain(config: Any) -> dict[str, Any]:
    """Return a config as nested dicts, lists, numbers and strings, as a checkpoint may hold it."""
    structured = OmegaConf.structured(config)
    plain = OmegaConf.to_container(structured, resolve=True, enum_to_str=True)
    return cast(dict[str, Any], plain)


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def from_plain(schema: type[T], plain: Mapping[str, Any], key: str = "") -> T:
    """Rebuild a config from `to_plain`.

    Args:
        schema: The dataclass to build. For the config of a component group, `plain["name"]` picks
            the choice.
        plain: Nested dicts of numbers, strings, lists.
        key: Key of this part in the whole config, for messages.

    Raises:
        ValueError: An unknown choice or key, a value out of its range, or one that is not plain
            data.
    """
    got = plain if isinstance(plain, str) else type(plain).__name__
    require(isinstance(plain, Mapping), key or schema.__name__, "settings by name", got)
    if issubclass(schema, ComponentConfig):
        schema = cast(type[T], _chosen_config(schema, plain.get("name"), key))
    hints = typing.get_type_hints(schema)
    values = {}
    for name, value in plain.items():
        path = f"{key}.{name}".lstrip(".")
        if name not in hints:
            known = sorted(field.name for field in dataclasses.fields(cast(Any, schema)))
            near = did_you_mean(str(name), known)
            raise ValueError(f"unknown key {path}.{near} Known here: {', '.join(known)}")
        nested = _dataclass_of(hints[name])
        if nested is None:
            got = value if isinstance(value, str) else type(value).__name__
            expected = f"plain data, without ${{...}}, at most {MAX_LIST_LENGTH} items"
            require(is_plain(value), path, expected, got)
        require(value != MISSING, path, "set", "nothing")
        has_fields = nested is not None and value is not None
        values[name] = from_plain(nested, value, path) if has_fields else value
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.structured(schema(**values))))
    except (ValueError, TypeError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}.{error}".lstrip(".")) from error


def is_plain(value: object) -> bool:
    """Return True for a scalar or a short list of scalars, without ${...}.

    OmegaConf would resolve ${oc.env:HOME} and such. No config needs longer or nested lists, and a
    file could make them expensive to process.
    """
    if isinstance(value, list):
        is_short = len(value) <= MAX_LIST_LENGTH
        return is_short and not any(isinstance(item, list) or not is_plain(item) for item in value)
    if isinstance(value, str):
        return "${" not in value
    return value is None or isinstance(value, bool | int | float)


def _chosen_config(schema: type[ComponentConfig], name: Any, key: str) -> type[ComponentConfig]:
    """Return the config class of a choice, by name."""
    choices = schema.base.choices
    if not isinstance(name, str) or name not in choices:
        group = schema.base.group
        raise ValueError(
            f"{key or group}: unknown {group} {name!r}; known: {', '.join(sorted(choices))}. "
            f"One of your own is known once its module is imported: plugins=[MODULE]"
        )
    return choices[name].Config


def _dataclass_of(hint: Any) -> Any:
    """Return the dataclass in a type such as `Config` or `Config | None`, or None."""
    types = (hint, *typing.get_args(hint))
    return next((part for part in types if dataclasses.is_dataclass(part)), None)
