"""Settings that all stages have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from vaegan.config import require
from vaegan.training.callback_table import check_callbacks
from vaegan.training.trainer_config import DeviceConfig


@dataclass
class RunConfig:
    """Settings of every stage."""

    seed: int = 0  # of initialization, data order, noise and latents
    label: str = ""  # name of the run's arm in stage=compare
    # tag of the metric that is returned to a sweep; empty: the one that chooses the best checkpoint
    sweep_metric: str = ""
    # modules of your own that are imported first: their components can be chosen by name
    plugins: list[str] = field(default_factory=list)

    def resolve_defaults(self) -> Self:
        """Return the config with values for those that follow from others."""
        return self

    def devices(self) -> DeviceConfig | None:
        """Devices of the run; None: it has one process, and does not train."""
        return None

    def check_sweep_metric(self, tags: tuple[str, ...]) -> None:
        """Check that `sweep_metric` is empty or among the tags that the run has at its end."""
        is_known = self.sweep_metric in ("", *tags)
        require(is_known, "sweep_metric", f"one of {', '.join(tags)}", self.sweep_metric)

    def require_no_sweep_metric(self, stage: str) -> None:
        """Check that `sweep_metric` is empty."""
        expected = f"empty in stage={stage}, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)


@dataclass
class TrainingRun(RunConfig):
    """Settings of every stage that trains."""

    # resume the run in hydra.run.dir if there is one; resume=FOLDER does all by itself
    resume: bool = False
    # additional callbacks of the training, by name (vaegan/training/callback_table.py)
    callbacks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_callbacks(self.callbacks)
