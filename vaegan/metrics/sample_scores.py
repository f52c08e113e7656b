"""Registry of scores that compare generated images with real images.

A score is one function of two feature batches, defined in any imported file:

    @sample_score(Metric("norm_gap", "Difference of the mean feature norms.", "min"))
    def norm_gap(real: FeatureBatch, fake: FeatureBatch) -> float:
        return abs(float(real.features.norm(dim=1).mean() - fake.features.norm(dim=1).mean()))

The score is then logged on val and test and reported by stage=evaluate. With `is_sweep_metric=True`
sweeps can optimize it. A score must depend only on the two batches and must not advance torch's
global generators. The built-in scores are computed in float64 on the device of the features,
without communication between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from vaegan.config import require
from vaegan.metrics.metric_table import Metric, register_metric

MAX_PIXEL_IMAGES = 1024  # images whose pixels are kept for pixel-based scores
# Rows of a distance matrix in memory at a time: fits one core's cache; 20 MB at 10,000 columns.
CHUNK_ROWS = 256


T = TypeVar("T")


class NonFiniteError(ValueError):
    """Raised when features or logits contain nan or infinity."""


@dataclass(eq=False)
class FeatureBatch:
    """Features, class logits and pixels of N images."""

    features: Tensor  # (N, D)
    # (N, K), logits or log-probabilities; None if the feature extractor has no classes
    logits: Tensor | None = None
    # pixels of the first images, at most MAX_PIXEL_IMAGES, uint8, (n, C, H, W); None if not given
    images: Tensor | None = None
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def cached(self, function: Callable[..., T], *args: Any) -> T:
        """Return `function(self, *args)`, computed once for the same function and arguments.

        Statistics of real images are thus not recomputed at every validation. Use a function of a
        module, not a lambda, and do not modify the batch or the result.
        """
        key = (function, *args)
        if key not in self._cache:
            self._cache[key] = function(self, *args)
        result: T = self._cache[key]
        return result

    def pixels(self) -> Tensor:
        """Return `images`, which scores with `needs_images=True` may use."""
        assert self.images is not None
        return self.images


Score = Callable[[FeatureBatch, FeatureBatch], float | dict[str, float]]
F = TypeVar("F", bound=Score)


@dataclass(frozen=True)
class SampleScore:
    """A registered score."""

    function: Score
    needs_classes: bool  # True if the function reads `FeatureBatch.logits`
    needs_images: bool  # True if the function reads `FeatureBatch.images`
    needs_covariance: bool  # True if the function estimates the covariance of the features
    needs_colors: bool = False  # True if the function compares the channels of images

    def is_defined(self, real: FeatureBatch, fake: FeatureBatch) -> bool:
        """True if both batches have what the function needs."""
        batches = (real, fake)
        if self.needs_classes and any(batch.logits is None for batch in batches):
            return False
        needs_images = self.needs_images or self.needs_colors
        if needs_images and any(batch.images is None for batch in batches):
            return False
        if self.needs_colors and real.pixels().shape[1] == 1:
            return False
        return not self.needs_covariance or all(
            can_estimate_covariance(*batch.features.shape) for batch in batches
        )


SAMPLE_SCORES: dict[str, SampleScore] = {}  # by the name of their first metric


def can_estimate_covariance(num_images: int, num_features: int) -> bool:
    """True if there are more images than features; with fewer, the covariance is singular."""
    return num_images > num_features


def covariance_scores() -> list[str]:
    """Return the names of the scores that need more images than features."""
    return [name for name, score in SAMPLE_SCORES.items() if score.needs_covariance]


def sample_score(
    *metrics: Metric,
    needs_classes: bool = False,
    needs_images: bool = False,
    needs_covariance: bool = False,
    needs_colors: bool = False,
) -> Callable[[F], F]:
    """Return a decorator that registers a function (real, fake) -> score.

    Args:
        metrics: Metrics that the function computes. It returns a float for one metric and a dict by
            metric name for several.
        needs_classes: True if the function reads logits. It is skipped if the feature extractor
            has no classes.
        needs_images: True if the function reads pixels. It is skipped if the batches have none.
        needs_covariance: True if the function estimates the covariance of the features. It is
            skipped unless there are more images than features.
        needs_colors: True if the function compares the channels of images. It is skipped for gray
            images, and if the batches have no pixels.

    Raises:
        ValueError: Another metric has the same name.
    """

    def register(function: F) -> F:
        for metric in metrics:
            register_metric(metric)
        SAMPLE_SCORES[metrics[0].name] = SampleScore(
            function, needs_classes, needs_images, needs_covariance, needs_colors
        )
        return function

    return register


def check_pair(real: Tensor, fake: Tensor, kind: str = "features") -> tuple[Tensor, Tensor]:
    """Return both matrices, (N, D) and (M, D), in float64.

    Raises:
        NonFiniteError: A value is nan or infinite.
        ValueError: The widths or devices differ.
    """
    real = check_finite(real, f"real {kind}")
    fake = check_finite(fake, f"fake {kind}")
    expected = f"of width {real.shape[1]} and on {real.device}, as the real {kind} are"
    is_match = real.shape[1] == fake.shape[1] and real.device == fake.device
    require(is_match, f"fake {kind}", expected, (fake.shape[1], str(fake.device)))
    return real, fake


def check_finite(features: Tensor, name: str) -> Tensor:
    """Check that features are finite, and return them detached in float64, (N, D).

    Features on MPS, which has no float64, are moved to the CPU.

    Args:
        features: Features or logits, (N, D), N >= 2.
        name: Name of the features in error messages.

    Raises:
        NonFiniteError: A value is nan or infinite.
        ValueError: The features do not have shape (N, D) with N >= 2.
    """
    is_matrix = features.ndim == 2 and len(features) >= 2
    require(is_matrix, name, "of shape (N, D) with N at least 2", tuple(features.shape))
    num_bad = int((~features.isfinite()).any(1).sum())
    if num_bad:
        raise NonFiniteError(
            f"{name} must be finite; got nan or inf in {num_bad} of {len(features)} images, from "
            "the generator or the feature extractor"
        )
    features = features.detach()
    if features.device.type == "mps":
        features = features.cpu()
    return features.double()


def iterate_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield row slices of `a` (N, D) and the Euclidean distances of these rows to `b` (M, D).

    A slice has at most `CHUNK_ROWS` rows; its distances have shape (rows, M) and are float32.

    The form |a|^2 + |b|^2 - 2 a.b is five times faster than differences. In float32 it would lose
    the distances of near neighbors; in float64 the error is about 1e-8 of the size of the features.
    Rounding to float32 makes the distances of equal pairs equal again, as the strict comparison
    with a radius requires.
    """
    center = b.mean(0)
    a = a - center
    b = b - center
    for start in range(0, len(a), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        yield rows, torch.cdist(a[rows], b, compute_mode="use_mm_for_euclid_dist").float()
