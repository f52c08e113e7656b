"""Registration of stages and components with Hydra, and the typed config of a command line."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from vaegan.cli.plugins import load_plugins
from vaegan.config import GROUPS, ComponentConfig, from_plain
from vaegan.metrics.metric_table import sweep_metrics
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES
from vaegan.training.callback_table import CALLBACKS


def register() -> None:
    """Add every choice of every group, and every stage, to Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for name, stage in STAGES.items():
        schema = OmegaConf.structured(stage.config)
        defaults: list[Any] = [f"/{name}_run"]
        for key, (group, choice) in component_fields(stage.config).items():
            if choice is not None:
                schema[key] = MISSING  # the choice of the group is merged into it
            defaults.append({f"/{group}": choice})
        store.store(name=f"{name}_run", node=schema)
        store.store(group="stage", name=name, node={"defaults": defaults}, package="_global_")
    for group, base in GROUPS.items():
        for name, component in base.choices.items():
            store.store(group=group, name=name, node=component.Config)
    OmegaConf.register_new_resolver("names", names, replace=True)


def names(table: str) -> str:
    """Return the names in a table for the help: `${names:metrics}`, `${names:callbacks}`."""
    tables = {
        "metrics": [*sweep_metrics("vae"), *sweep_metrics("gan")],
        "callbacks": list(CALLBACKS),
    }
    return ", ".join(tables[table])


def component_fields(config: type[RunConfig]) -> dict[str, tuple[str, str | None]]:
    """Return the group, and the default choice or None, of each field that holds a component."""
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
    """Return the typed and resolved config of a composed command line.

    Raises:
        ValueError: An unknown key, or a value out of its range.
    """
    run_type = typing.cast(type[RunConfig], OmegaConf.get_type(config))
    container = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    plain = typing.cast(dict[str, Any], container)
    load_plugins(plain.get("plugins", []))  # a process of a sweep starts without them
    return from_plain(run_type, plain).resolve_defaults()
