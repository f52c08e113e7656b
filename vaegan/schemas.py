"""The one file of the package that knows Hydra: choices and runs as schemas of conf/, and what is said of a bad command."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from vaegan.config import GROUPS, ComponentConfig, did_you_mean, from_plain
from vaegan.stages.runs import GANRun, PipelineRun, VAERun

RUNS = {"vae": VAERun, "gan": GANRun, "pipeline": PipelineRun}
Run = VAERun | GANRun | PipelineRun


def register() -> None:
    """Put every choice of every group, and every run, into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for stage, run in RUNS.items():
        store.store(name=f"{stage}_run", node=run)
    for group, base in GROUPS.items():
        for name, component in base.choices.items():
            store.store(group=group, name=name, node=component.Config)


def typed(config: DictConfig) -> Run:
    """The run that a command line composed to.

    Raises:
        ValueError: A key that the schema does not have, or a value out of its range.
    """
    run_type = typing.cast(type[Run], OmegaConf.get_type(config))
    plain = typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    return from_plain(run_type, plain)


class CheckSweep(Callback):
    """Types every job of a sweep before the first one starts: a bad value in the third is said at once."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            return  # other sweepers choose their values as they go
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        for batch in BasicSweeper.split_arguments(overrides, max_batch_size=None):
            for job in batch:
                try:
                    typed(hydra.compose(config.hydra.job.config_name, list(job)))
                except ValueError as error:
                    raise SystemExit(f"{error}\nin this job of the sweep: {' '.join(job)}") from error


def explain(error: Exception, command: Sequence[str]) -> str:
    """What Hydra says of a command line that does not compose, with the nearest known key or choice."""
    said = str(error)
    missing = re.search(r"Could not find '([\w/]+)/([^/']+)'", said)
    if missing:
        options = re.findall(r"^\t(\S+)", said, re.MULTILINE)
        return f"{missing[1]}={missing[2]}: no such choice.{did_you_mean(missing[2], options)}\n{said}"
    unknown = re.search(r"Could not override '([^']+)'", said) or re.search(
        r"No match in the defaults list.*\n?", said
    )
    key = unknown and re.search(r"Could not override '\+*([^'=]+)'", said)
    if key:
        stage = next(
            (word.removeprefix("stage=") for word in command if word.startswith("stage=")), "pipeline"
        )
        known = [*GROUPS, "stage", "experiment", *keys(RUNS.get(stage, PipelineRun))]
        return f"{said}\n{nearest_key(key[1], known)}"
    return said


def nearest_key(key: str, known: Sequence[str]) -> str:
    """' Did you mean x?' for a dotted key: one with the same last word in another place, else the most similar one."""
    same_end = [other for other in known if other.split(".")[-1] == key.split(".")[-1]]
    return f"Did you mean {' or '.join(same_end)}?" if same_end else did_you_mean(key, known).strip()


def keys(schema: type) -> Iterator[str]:
    """Every dotted key of a run's schema, those of all choices included."""
    for name, hint in typing.get_type_hints(schema).items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        yield name
        for part in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(part):
                is_component = issubclass(typing.cast(type, part), ComponentConfig)
                schemas = [c.Config for c in part.base.choices.values()] if is_component else [part]  # type: ignore[union-attr]
                yield from dict.fromkeys(
                    f"{name}.{key}" for part in schemas for key in keys(typing.cast(type, part))
                )
