"""Result of a stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class StageResult:
    """Files and metrics that a stage leaves behind."""

    folder: Path
    checkpoint: Path  # of the best validation
    metrics: dict[str, float]  # by tag, such as test/elbo
    # scores of real images against real images, by tag
    real_vs_real: dict[str, float] = field(default_factory=dict)
    tag: str = ""  # metric that a sweep gets, where the run's config leaves it open
