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
    floor: dict[str, float] = field(default_factory=dict)  # scores of real images, by tag
    tag: str = ""  # metric that a sweep gets, where the run's config leaves it open
