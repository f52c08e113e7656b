"""Result of a stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class StageResult:
    """Files and metrics produced by a stage."""

    folder: Path  # folder of the stage
    checkpoint: Path  # checkpoint with the best validation metric, or the evaluated one
    metrics: dict[str, float]  # final metrics by tag, such as test/elbo
    # real-data baseline: scores of real images against other real images, by tag
    real_vs_real: dict[str, float] = field(default_factory=dict)
    tag: str = ""  # metric returned to a sweep if the run's config does not set sweep_metric
