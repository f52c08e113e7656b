"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vaegan.config import require


@dataclass
class RunConfig:
    """What every run has."""

    seed: int = 0  # of initialization, order, noise and latents
    label: str = ""  # name of the run's arm in stage=compare
    sweep_metric: str = ""  # tag of the metric that train.py returns to a sweep; empty: what chooses the best checkpoint

    def check_sweep_metric(self, names: tuple[str, ...]) -> None:
        """`sweep_metric` must be among what the run has at its end."""
        require(
            self.sweep_metric in names,
            "sweep_metric",
            f"one of {', '.join(names)}",
            self.sweep_metric,
        )


@dataclass
class TrainingRun(RunConfig):
    """What every run that trains has."""

    STAGE: ClassVar[str]
    resume: bool = False  # go on with the run in hydra.run.dir, if there is one; resume=FOLDER does all by itself
