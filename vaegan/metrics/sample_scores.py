"""Registry of the scores that compare generated with real images.

A score is one function of two feature batches, in any file that is imported:

    @sample_score(Metric("norm_gap", "Difference of the mean feature norms.", "min"))
    def norm_gap(real: FeatureBatch, fake: FeatureBatch) -> float:
        return abs(float(real.features.norm(dim=1).mean() - fake.features.norm(dim=1).mean()))

It is then logged on val and test, evaluated, and with `is_sweep_metric=True` optimized by sweeps. A
score must depend on nothing but the features and leave torch's global generators as they are. The
built-in ones compute in float64 on the device of the features, from this process's features alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from vaegan.config import require
from vaegan.metrics.metric_table import Metric, register_metric

NEIGHBORS = 5  # k of the k-nearest-neighbor balls
CHUNK = 256  # rows of a distance matrix at a time: fits one core's cache; 20 MB at 10,000 columns


class NonFiniteError(ValueError):
    """Features that are nan or infinite: they have no distance."""


@dataclass(eq=False)
class FeatureBatch:
    """Features and classes of N images."""

    features: Tensor  # (N, D)
    logits: Tensor | None = None  # (N, K), or log-probabilities; None if there are no classes
    _radii: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def radii(self, k: int = NEIGHBORS) -> Tensor:
        """Return the Euclidean distance of each feature vector to its k-th neighbor, (N,), cached.

        Raises:
            ValueError: Features that are not finite, or of k images or fewer.
        """
        if k not in self._radii:
            features = check_finite(self.features, "features")
            num = len(features)
            require(k >= 1, "k", "1 or more", k)
            require(num > k, "number of images", f"more than the k = {k} nearest neighbors", num)
            nearest = [
                distances.topk(k + 1, largest=False, sorted=False).values.amax(1)
                for _, distances in iterate_distances(features, features)
            ]
            self._radii[k] = torch.cat(nearest)
        return self._radii[k]


Score = Callable[[FeatureBatch, FeatureBatch], float | dict[str, float]]
F = TypeVar("F", bound=Score)


@dataclass(frozen=True)
class SampleScore:
    """A registered function."""

    function: Score
    needs_classes: bool


SAMPLE_SCORES: dict[str, SampleScore] = {}  # by the name of the first metric


def sample_score(*metrics: Metric, needs_classes: bool = False) -> Callable[[F], F]:
    """Register a function of real and generated images' features.

    Args:
        metrics: Metric that the function returns as a float, or several that it returns as a dict.
        needs_classes: True if it reads logits; it is skipped if the feature network has no classes.

    Raises:
        ValueError: Another metric has the same name.
    """

    def register(function: F) -> F:
        for metric in metrics:
            register_metric(metric)
        SAMPLE_SCORES[metrics[0].name] = SampleScore(function, needs_classes)
        return function

    return register


def check_pair(real: Tensor, fake: Tensor, kind: str = "features") -> tuple[Tensor, Tensor]:
    """Return both in float64 after checking that they are finite and fit together."""
    real = check_finite(real, f"real {kind}")
    fake = check_finite(fake, f"fake {kind}")
    expected = f"as wide as the real ones, {real.shape[1]}, and on the same device, {real.device}"
    fits = real.shape[1] == fake.shape[1] and real.device == fake.device
    require(fits, f"fake {kind}", expected, (fake.shape[1], str(fake.device)))
    return real, fake


def check_finite(features: Tensor, name: str) -> Tensor:
    """Return finite features (N, D), detached, in float64: on the CPU if they are on MPS.

    Raises:
        NonFiniteError: A value is nan or infinite.
        ValueError: The shape is another one.
    """
    is_matrix = features.ndim == 2 and len(features) >= 2
    require(is_matrix, name, "of shape (N, D), N at least 2", tuple(features.shape))
    num_bad = int((~features.isfinite()).any(1).sum())
    if num_bad:
        raise NonFiniteError(
            f"{name} must be finite: the generator or the feature network produced non-finite "
            f"values; got nan or inf in {num_bad} of {len(features)} images"
        )
    features = features.detach()
    if features.device.type == "mps":  # has no float64
        features = features.cpu()
    return features.double()


def iterate_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield up to `CHUNK` rows of `a` (N, D), and their float32 distances (CHUNK, M) to `b` (M, D).

    The product |a|^2 + |b|^2 - 2 a.b is five times faster than differences. In float32 it would
    lose the distances of near neighbors; in float64 it is exact to about 1e-8 of the features'
    size. Rounding to float32 makes equal pairs equal again, which the strict comparison with a
    radius relies on.
    """
    center = b.mean(0)
    a = a - center
    b = b - center
    for start in range(0, len(a), CHUNK):
        rows = slice(start, start + CHUNK)
        yield rows, torch.cdist(a[rows], b, compute_mode="use_mm_for_euclid_dist").float()
