"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class StageResult:
    """What a stage leaves behind."""

    folder: Path
    checkpoint: Path  # the best one
    metrics: dict[str, float]  # by tag, such as test/elbo
    real_vs_real: dict[str, float] = field(
        default_factory=dict
    )  # by tag: scores of real images against real images
    tag: str = ""  # of the metric that a sweep gets, where the run's config leaves it open
