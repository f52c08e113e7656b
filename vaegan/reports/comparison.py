"""Arms against a baseline: how much sooner a warm start is where the cold one gets to. Statistics only, no files.

Runs of one data set, scored by the same features, form a panel. In it the runs of one label are an arm; its seeds are
repeats, and its curve is their pointwise median. With u updates of the generator, d(u) a curve's Frechet distance,
linear between validations, and d_c the baseline's:

    levels         every d_c(u_c) at a validation with u_c > 0 that is below all of d_c before
    update ratio   min{u : d(u) <= level} / u_c, for each level; infinite if never
    compute ratio  the same in PFLOP from the first step of the VAE on
    worst rise     max_u d(u) / d(0)

Where a curve is convex, the straight line lies above it: the arm's crossing comes out late, never early. A warm-up of
the discriminator is flat and would break that, so the point at which the generator starts is put into the curve. The
baseline's own crossings are at validations, hence exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from vaegan.config import flatten, require

NOT_SETTINGS = (
    "label",
    "seed",
    "vae_ckpt",
    "sweep_metric",
)  # what repeats of one arm may differ in
BASELINE_TOLERANCE = (
    0.02  # relative; devices round differently, other features or images differ by more
)
MAX_UPDATE_RATIO = 0.25
MAX_RISE = 1.10
AIMS = {
    "a": f"at most {MAX_UPDATE_RATIO:g} of the baseline's generator updates, at every level",
    "b": f"Frechet distance never above {MAX_RISE:.2f} times where it started",
    "c": "at the end, Frechet distance and recall no worse than the baseline's",
    "d": "less compute than the baseline at every level, the VAE's included",
}


class Curve(NamedTuple):
    """Scores on the val split, one of each for every validation."""

    images: Sequence[float]  # real ones that the discriminator has seen
    updates: Sequence[float]  # of the generator
    compute: Sequence[float]  # PFLOP, the VAE's included
    distance: Sequence[float]  # Frechet; infinite for a generator that has broken down
    recall: Sequence[float]


def with_start(curve: Curve) -> Curve:
    """The curve with a point where the discriminator's warm-up ends, scored as before it.

    Its compute is interpolated as if the batches of the warm-up cost as much as the others: they cost less, so that
    the point comes late, never early.
    """
    last = max(i for i, updates in enumerate(curve.updates) if updates == 0)
    if curve.updates[-1] == curve.updates[-2]:
        return curve  # the generator never starts
    images_of_an_update = (curve.images[-1] - curve.images[-2]) / (
        curve.updates[-1] - curve.updates[-2]
    )
    interval = curve.images[last + 1] - curve.images[last]
    share = 1 - curve.updates[last + 1] * images_of_an_update / interval
    if share <= 1e-9:
        return curve
    images, compute = (
        axis[last] + share * (axis[last + 1] - axis[last]) for axis in (curve.images, curve.compute)
    )
    start = Curve([images], [0.0], [compute], [curve.distance[last]], [curve.recall[last]])
    parts = zip(curve, start, strict=True)
    return Curve(*([*axis[: last + 1], *point, *axis[last + 1 :]] for axis, point in parts))


@dataclass(frozen=True)
class Run:
    """A finished GAN run."""

    folder: Path
    label: str  # of its arm
    seed: int
    dataset: str
    feature_extractor: str  # that the Frechet distance and recall are made of
    num_images: int  # in a score
    real_vs_real: dict[str, float]  # scores of real images, by metric
    stage1_compute: float  # PFLOP that the VAE cost; 0 for a cold start
    metrics: dict[str, float]  # at the end, by tag
    config: dict[str, Any]
    curve: Curve


def compare_runs(runs: Sequence[Run], baseline: str) -> dict[str, Any]:
    """Every arm of every panel against the baseline's arm of that panel.

    Args:
        runs: All runs.
        baseline: Label of an arm that every panel has.

    Returns:
        What comparison.json holds, apart from infinities and nan.

    Raises:
        ValueError: Runs that cannot be compared, both named.
    """
    require(len(runs) > 0, "runs", "at least 1 run", [])
    panels: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        panel = panels.setdefault((run.dataset, run.feature_extractor), {})
        panel.setdefault(run.label, []).append(run)
    return {
        "baseline": baseline,
        "aims": AIMS,
        "runs": [str(run.folder) for run in runs],
        "panels": [compare_panel(panels[key], baseline) for key in sorted(panels)],
    }


def compare_panel(arms: dict[str, list[Run]], baseline: str) -> dict[str, Any]:
    """One data set: the baseline first, then by what the VAE cost."""
    runs = [run for arm in arms.values() for run in arm]
    dataset, num_images = runs[0].dataset, runs[0].num_images
    require(
        baseline in arms,
        "baseline",
        f"a label of the runs on {dataset}: {', '.join(sorted(arms))}",
        baseline,
    )
    for run in runs:
        if run.num_images != num_images:
            refuse(
                runs[0],
                run,
                "are scored on different numbers of images, on which the Frechet distance depends",
            )
        baselines = [each.real_vs_real["frechet_distance"] for each in (runs[0], run)]
        if not math.isclose(*baselines, rel_tol=BASELINE_TOLERANCE):
            why = f"real images score {baselines[0]:.4g} and {baselines[1]:.4g}; the weights of the features or the data differ"
            refuse(runs[0], run, f"are not scored alike: {why}")
    medians = {label: median_curve(check_arm(arm)) for label, arm in arms.items()}

    def order(label: str) -> tuple[bool, float, str]:
        return label != baseline, median(run.stage1_compute for run in arms[label]), label

    reports = []
    for label in sorted(arms, key=order):
        report = describe_arm(arms[label], medians[label])
        if label != baseline:
            if not shared_end(medians[label], medians[baseline]):
                refuse(arms[baseline][0], arms[label][0], "share no scoring point after the start")
            report["against_baseline"] = discriminator_logits(medians[label], medians[baseline])
            base = {run.seed: run.curve for run in arms[baseline]}
            pairs = {run.seed: run.curve for run in arms[label] if run.seed in base}
            report["seed_pairs"] = [
                {"seed": seed} | discriminator_logits(curve, base[seed])
                for seed, curve in sorted(pairs.items())
            ]
        reports.append(report)
    return {
        "dataset": dataset,
        "feature_extractor": runs[0].feature_extractor,
        "num_images": num_images,
        "real_vs_real": spread_tags(run.real_vs_real for run in runs),
        "settings": settings(arms),
        "arms": reports,
    }


def check_arm(arm: list[Run]) -> list[Curve]:
    """Curves of the runs of an arm, which must be repeats of each other."""
    for i, run in enumerate(arm):
        if twin := next((other for other in arm[:i] if other.seed == run.seed), None):
            refuse(twin, run, f"have the same label={run.label} and seed={run.seed}")
        if tuple(run.curve.images) != tuple(arm[0].curve.images):
            refuse(
                arm[0],
                run,
                f"have the same label={run.label}, but other scoring points or another budget",
            )
    return [run.curve for run in arm]


def refuse(first: Run, second: Run, why: str) -> None:
    """Say why two runs cannot be compared."""
    raise ValueError(f"runs: {first.folder} and {second.folder} {why}")


def median_curve(curves: Sequence[Curve]) -> Curve:
    """Pointwise median of curves with the same scoring points."""
    return Curve(
        *(
            [median(values) for values in zip(*lines, strict=True)]
            for lines in zip(*curves, strict=True)
        )
    )


def describe_arm(arm: list[Run], curve: Curve) -> dict[str, Any]:
    """Curves, start and end of an arm, over its seeds."""
    arm = sorted(arm, key=lambda run: run.seed)
    distance = [spread(values) for values in zip(*(run.curve.distance for run in arm), strict=True)]
    recall = [spread(values) for values in zip(*(run.curve.recall for run in arm), strict=True)]
    return {
        "label": arm[0].label,
        "seeds": [run.seed for run in arm],
        "runs": [str(run.folder) for run in arm],
        "stage1_compute": spread([run.stage1_compute for run in arm]),
        "start": {"frechet_distance": distance[0], "recall": recall[0]},
        "end": {
            "images": curve.images[-1],
            "updates": curve.updates[-1],
            "compute": curve.compute[-1],
        }
        | {"frechet_distance": distance[-1], "recall": recall[-1]},
        "test": spread_tags(run.metrics for run in arm),
        "worst_rise": {
            "median_curve": worst_rise(curve),
            "worst_seed": max(worst_rise(run.curve) for run in arm),
        },
        "curve": {"images": curve.images, "updates": curve.updates, "compute": curve.compute}
        | {"frechet_distance": distance, "recall": recall},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and largest."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def spread_tags(metrics: Iterable[dict[str, float]]) -> dict[str, dict[str, float]]:
    """`spread` of every tag that all runs have."""
    runs = list(metrics)
    return {
        tag: spread([run[tag] for run in runs])
        for tag in runs[0]
        if all(tag in run for run in runs)
    }


def settings(arms: dict[str, list[Run]]) -> dict[str, dict[str, list[str]]]:
    """Settings in which the runs differ: dotted key, then label, then its values as JSON."""
    flat = {label: [flatten(run.config) for run in arm] for label, arm in arms.items()}
    keys = dict.fromkeys(key for arm in flat.values() for run in arm for key in run)
    found = {
        key: {
            label: sorted({json.dumps(run.get(key)) for run in arm}) for label, arm in flat.items()
        }
        for key in keys
        if key.split(".")[-1] not in NOT_SETTINGS
    }
    return {
        key: of
        for key, of in found.items()
        if len({value for values in of.values() for value in values}) > 1
    }


def discriminator_logits(arm: Curve, baseline: Curve) -> dict[str, Any]:
    """A curve against the baseline's: ratios over all levels, rise, scores where both end, aims that it meets."""
    arm, levels = with_start(arm), []
    for i in records(baseline):
        level = {"frechet_distance": baseline.distance[i]}
        for axis, ours, theirs in (
            ("updates", arm.updates, baseline.updates),
            ("compute", arm.compute, baseline.compute),
        ):
            reached = first_reach(ours, arm.distance, baseline.distance[i])
            level |= {
                axis: reached,
                f"baseline_{axis}": theirs[i],
                f"{axis}_ratio": reached / theirs[i],
            }
        levels.append(level)
    updates = [level["updates_ratio"] for level in levels]
    compute = [level["compute_ratio"] for level in levels]
    images = shared_end(arm, baseline)
    i, j = arm.images.index(images), baseline.images.index(images)
    is_no_worse = arm.distance[i] <= baseline.distance[j] and arm.recall[i] >= baseline.recall[j]
    in_time = [ratio <= MAX_UPDATE_RATIO for ratio in updates]
    is_cheaper = [ratio < 1 for ratio in compute]
    return {
        "update_ratio": summary(updates, in_time),
        "compute_ratio": summary(compute, is_cheaper),
        "worst_rise": worst_rise(arm),
        "common_end": {
            "images": images,
            "frechet_distance": [arm.distance[i], baseline.distance[j]],
        }
        | {"recall": [arm.recall[i], baseline.recall[j]]},
        "aims": {
            "a": bool(levels) and all(in_time),
            "b": worst_rise(arm) <= MAX_RISE,
            "c": is_no_worse,
            "d": bool(levels) and all(is_cheaper),
        },
        "levels": levels,
    }


def records(curve: Curve) -> list[int]:
    """Validations, after the generator's first update, with the least distance so far."""
    return [
        i
        for i, d in enumerate(curve.distance)
        if i > 0 and curve.updates[i] > 0 and d < min(curve.distance[:i])
    ]


def first_reach(axis: Sequence[float], distance: Sequence[float], level: float) -> float:
    """Where a distance, linear between its points, is first at or below a level; infinity if nowhere."""
    i = next((i for i, d in enumerate(distance) if d <= level), None)
    if i is None:
        return math.inf
    if i == 0 or math.isinf(distance[i - 1]):
        return axis[i]
    share = (distance[i - 1] - level) / (distance[i - 1] - distance[i])
    return axis[i - 1] + share * (axis[i] - axis[i - 1])


def summary(ratios: list[float], is_met: list[bool]) -> dict[str, float]:
    """Worst and median ratio, and the share of levels at which the aim is met; nan without a level."""
    if not ratios:
        return {"worst": math.nan, "median": math.nan, "share_met": math.nan}
    return {"worst": max(ratios), "median": median(ratios), "share_met": sum(is_met) / len(is_met)}


def shared_end(first: Curve, second: Curve) -> float:
    """The last number of images at which both are scored."""
    return max(set(first.images) & set(second.images))


def worst_rise(curve: Curve) -> float:
    """Largest distance relative to that before the training."""
    return max(curve.distance) / curve.distance[0]
