"""Register stages and components with Hydra, and convert composed configs to typed ones."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from vaegan.cli.plugins import load_plugins
from vaegan.config import GROUPS, ComponentConfig, from_plain
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES


def register() -> None:
    """Add all stages and all choices of all groups to Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for name, stage in STAGES.items():
        schema = OmegaConf.structured(stage.config)
        defaults: list[Any] = [f"/{name}_run"]
        for key, (group, choice) in component_fields(stage.config).items():
            if choice is not None:
                schema[key] = MISSING  # Hydra merges the selected choice into it
            defaults.append({f"/{group}": choice})
        store.store(name=f"{name}_run", node=schema)
        store.store(group="stage", name=name, node={"defaults": defaults}, package="_global_")
    for group, base in GROUPS.items():
        for name, component in base.choices.items():
            store.store(group=group, name=name, node=component.Config)


def component_fields(config: type[RunConfig]) -> dict[str, tuple[str, str | None]]:
    """Return the component fields of a config as {field: (group, default choice or None)}."""
    hints = typing.get_type_hints(config)
    found = {}
    for field in dataclasses.fields(config):
        types = (hints[field.name], *typing.get_args(hints[field.name]))
        base = next(
            (t for t in types if isinstance(t, type) and issubclass(t, ComponentConfig)), None
        )
        if base is not None:
            factory: Any = field.default_factory
            choice = None if factory is dataclasses.MISSING else factory().name
            found[field.name] = (base.base.group, choice)
    return found


def to_run_config(config: DictConfig) -> RunConfig:
    """Convert a composed Hydra config to a typed config with resolved defaults.

    Raises:
        ValueError: A key is unknown, or a value is out of range.
    """
    run_type = typing.cast(type[RunConfig], OmegaConf.get_type(config))
    container = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    plain = typing.cast(dict[str, Any], container)
    load_plugins(plain.get("plugins", []))  # worker processes of a sweep have not imported them
    return from_plain(run_type, plain).resolve_defaults()
