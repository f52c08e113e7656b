"""The one file of the package that knows Hydra: the schemas of conf/, and what is said of a bad command."""

from __future__ import annotations

import typing
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from vaegan.config import GROUPS, from_plain
from vaegan.stages.tool_configs import CompareRun, EvaluateRun, ExportRun, PackRun
from vaegan.stages.training_runs import GANRun, PipelineRun, VAERun

RUNS = {
    "vae": VAERun,
    "gan": GANRun,
    "pipeline": PipelineRun,
    "evaluate": EvaluateRun,
    "export": ExportRun,
    "compare": CompareRun,
    "optimize": PackRun,
}
Run = VAERun | GANRun | PipelineRun | EvaluateRun | ExportRun | CompareRun | PackRun


def register() -> None:
    """Put every choice of every group, and every run, into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for stage, run in RUNS.items():
        store.store(name=f"{stage}_run", node=run)
    for group, base in GROUPS.items():
        for name, component in base.choices.items():
            store.store(group=group, name=name, node=component.Config)


def to_run_config(config: DictConfig) -> Run:
    """The run that a command line composed to.

    Raises:
        ValueError: A key that the schema does not have, or a value out of its range.
    """
    run_type = typing.cast(type[Run], OmegaConf.get_type(config))
    plain = typing.cast(
        dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    )
    return from_plain(run_type, plain)
