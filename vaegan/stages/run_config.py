"""Settings shared by all stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from omegaconf import MISSING

from vaegan.config import ComponentConfig, require
from vaegan.runtime.paths import absolute_path
from vaegan.training.callback_table import check_callbacks
from vaegan.training.trainer_config import DeviceConfig

T = TypeVar("T", bound=ComponentConfig | None)
PATH_FIELDS = ("root", "cache", "path")  # of components: data sets and feature extractors
NO_PATHS = ("", "auto", MISSING)  # values of these fields that are not paths


def with_absolute_paths(config: T) -> T:
    """Return the config of a component with absolute paths, valid in any working directory."""
    if config is None:
        return config
    values: dict[str, Any] = {key: getattr(config, key, None) for key in PATH_FIELDS}
    if hasattr(config, "root"):
        values["root"] = values["root"] or config.component.DEFAULT_ROOT
    paths = {
        key: absolute_path(value)
        for key, value in values.items()
        if isinstance(value, str) and value not in NO_PATHS
    }
    return replace(config, **paths)


@dataclass
class RunConfig:
    """Settings of every stage."""

    seed: int = 0  # random seed of initialization, data order, noise and latents, >= 0
    label: str = ""  # name of the arm that the run belongs to in stage=compare
    # tag of the metric returned to a sweep, such as test/elbo; empty: the default of the stage (in
    # training, the metric that selects the best checkpoint)
    sweep_metric: str = ""
    # Python modules to import at startup, so that components declared in them can be selected
    plugins: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "at least 0", self.seed)

    def resolve_defaults(self) -> Self:
        """Return the config with the defaults that depend on other settings filled in."""
        return self

    def devices(self) -> DeviceConfig | None:
        """Return the devices of the run; None if the stage uses a single process."""
        return None

    def check_sweep_metric(self, tags: tuple[str, ...]) -> None:
        """Check that `sweep_metric` is empty or one of the tags that the run reports at its end."""
        is_known = self.sweep_metric in ("", *tags)
        require(is_known, "sweep_metric", f"one of {', '.join(tags)}", self.sweep_metric)

    def require_no_sweep_metric(self, stage: str) -> None:
        """Check that `sweep_metric` is empty."""
        expected = f"empty in stage={stage}, which has no metrics"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)


@dataclass
class TrainingRun(RunConfig):
    """Settings of every stage that trains."""

    # true: resume the run in hydra.run.dir, or start one if there is none; resume=FOLDER resumes
    # the run in FOLDER with its saved settings, resume=last the newest run in outputs/
    resume: bool = False
    # names of additional training callbacks (vaegan/training/callback_table.py)
    callbacks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callbacks(self.callbacks)
