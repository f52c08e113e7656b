"""Learning curves of GAN runs, and statistics of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple


class Curve(NamedTuple):
    """Scores on the val split; each sequence has one value per validation."""

    images: Sequence[float]  # real images seen by the discriminator
    updates: Sequence[float]  # generator updates
    compute: Sequence[float]  # PFLOP, including the VAE
    distance: Sequence[float]  # of the monitor; infinite if the generator has diverged
    recall: Sequence[float]


def median_curve(curves: Sequence[Curve]) -> Curve:
    """Return the pointwise median of curves with the same validations."""
    medians = []
    for axis in zip(*curves, strict=True):
        medians.append([median(point) for point in zip(*axis, strict=True)])
    return Curve._make(medians)


def insert_generator_start(curve: Curve) -> Curve:
    """Insert a point at the end of discriminator warm-up, with the scores of the last validation.

    Its compute is interpolated as if warm-up batches cost as much as the others. They cost less, so
    the compute is overestimated, never underestimated.
    """
    if curve.updates[-1] == curve.updates[-2]:
        return curve  # the generator never starts
    last = max(i for i, updates in enumerate(curve.updates) if updates == 0)
    num_updates = curve.updates[-1] - curve.updates[-2]
    images_per_update = (curve.images[-1] - curve.images[-2]) / num_updates
    interval = curve.images[last + 1] - curve.images[last]
    fraction = 1 - curve.updates[last + 1] * images_per_update / interval
    if fraction <= 1e-9:
        return curve
    start = Curve(
        images=[interpolate(curve.images, last, fraction)],
        updates=[0.0],
        compute=[interpolate(curve.compute, last, fraction)],
        distance=[curve.distance[last]],
        recall=[curve.recall[last]],
    )
    axes = zip(curve, start, strict=True)
    return Curve._make([*axis[: last + 1], *point, *axis[last + 1 :]] for axis, point in axes)


def interpolate(axis: Sequence[float], i: int, fraction: float) -> float:
    """Interpolate linearly between points i and i + 1."""
    return axis[i] + fraction * (axis[i + 1] - axis[i])


def find_improvements(curve: Curve) -> list[int]:
    """Return the indices of validations with updates > 0 and the lowest distance so far."""
    improvements = []
    for i in range(1, len(curve.distance)):
        is_lowest = curve.distance[i] < min(curve.distance[:i])
        if curve.updates[i] > 0 and is_lowest:
            improvements.append(i)
    return improvements


def first_crossing(axis: Sequence[float], distance: Sequence[float], level: float) -> float:
    """Return the axis value where the piecewise linear distance first reaches a level, or inf."""
    i = next((i for i, value in enumerate(distance) if value <= level), None)
    if i is None:
        return math.inf
    if i == 0 or math.isinf(distance[i - 1]):
        return axis[i]
    fraction = (distance[i - 1] - level) / (distance[i - 1] - distance[i])
    return interpolate(axis, i - 1, fraction)


def last_common_validation(first: Curve, second: Curve) -> float:
    """Return the largest number of images at which both curves have a validation."""
    return max(set(first.images) & set(second.images))


def worst_rise(curve: Curve) -> float:
    """Return the largest distance relative to the initial one."""
    return max(curve.distance) / curve.distance[0]
