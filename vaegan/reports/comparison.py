"""Comparison of GAN runs with a baseline, such as warm starts with cold ones. Statistics, no files.

Runs of one data set, scored by the same feature extractor, form a panel. In it the runs of one
label are an arm; its seeds are repeats, and its curve is their pointwise median. With u updates of
the generator, d(u) a curve's Frechet distance, linear between validations, and d_b the baseline's:

    levels         every d_b(u_b) at a validation with u_b > 0 that is below all of d_b before
    update ratio   min{u : d(u) <= level} / u_b, for each level; infinite if never reached
    compute ratio  the same in PFLOP from the first step of the VAE on
    worst rise     max_u d(u) / d(0)

Where a curve is convex, the straight line lies above it: the arm's crossing comes out late, never
early. A warm-up of the discriminator is flat and would break that, so the point at which the
generator starts is inserted into the curve. The baseline's own crossings are at validations, hence
exact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NoReturn

from vaegan.config import flatten, require
from vaegan.metrics.metric_table import is_better
from vaegan.reports.curves import (
    Curve,
    find_improvements,
    first_crossing,
    insert_generator_start,
    last_common_validation,
    median_curve,
    worst_rise,
)
from vaegan.reports.run_records import Run

REPEAT_KEYS = ("label", "seed", "vae_ckpt", "sweep_metric")  # settings that differ within an arm
BASELINE_TOLERANCE = 0.02  # relative; devices round differently, other features differ by more


@dataclass(frozen=True)
class Criteria:
    """Baseline, and what an arm must achieve against it."""

    baseline: str  # label of the reference arm
    max_update_ratio: float  # of the generator's updates to the baseline's
    max_rise: float  # of the Frechet distance over its start

    def describe(self) -> dict[str, str]:
        """Return a description of each criterion by its name."""
        return {
            "fewer_updates": f"at most {self.max_update_ratio:g} of the baseline's generator "
            "updates, at every level",
            "never_worse_than_start": "Frechet distance never above "
            f"{self.max_rise:.2f} times where it started",
            "no_worse_at_end": "at the end, Frechet distance and recall no worse than the "
            "baseline's",
            "less_compute": "less compute than the baseline at every level, the VAE's included",
        }


def compare_runs(runs: Sequence[Run], criteria: Criteria) -> dict[str, Any]:
    """Compare every arm of every panel with the baseline's arm of that panel.

    Returns:
        Content of comparison.json, apart from infinities and nan.

    Raises:
        ValueError: Runs that cannot be compared, both named.
    """
    require(len(runs) > 0, "runs", "at least 1 run", [])
    panels: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        panel = panels.setdefault((run.dataset, run.feature_extractor), {})
        panel.setdefault(run.label, []).append(run)
    return {
        "baseline": criteria.baseline,
        "criteria": criteria.describe(),
        "runs": [str(run.folder) for run in runs],
        "panels": [compare_panel(panels[key], criteria) for key in sorted(panels)],
    }


def compare_panel(arms: dict[str, list[Run]], criteria: Criteria) -> dict[str, Any]:
    """Compare the arms of a panel: the baseline comes first, the others by what the VAE cost."""
    runs = [run for arm in arms.values() for run in arm]
    baseline = criteria.baseline
    expected = f"a label of the runs on {runs[0].dataset}: {', '.join(sorted(arms))}"
    require(baseline in arms, "baseline", expected, baseline)
    for run in runs:
        check_is_comparable(runs[0], run)
    for arm in arms.values():
        check_are_repeats(arm)

    def order(label: str) -> tuple[bool, float, str]:
        return label != baseline, median(run.stage1_compute for run in arms[label]), label

    reports = [describe_arm(arms[label]) for label in sorted(arms, key=order)]
    for report in reports[1:]:
        report |= compare_arms(arms[report["label"]], arms[baseline], criteria)
    return {
        "dataset": runs[0].dataset,
        "feature_extractor": runs[0].feature_extractor,
        "num_images": runs[0].num_images,
        "real_vs_real": summarize_tags(run.real_vs_real for run in runs),
        "settings": find_differing_settings(arms),
        "arms": reports,
    }


def check_is_comparable(first: Run, second: Run) -> None:
    """Check that two runs of a panel are scored alike."""
    if first.num_images != second.num_images:
        reason = "are scored on different numbers of images, on which the Frechet distance depends"
        refuse(first, second, reason)
    distances = [run.real_vs_real["frechet_distance"] for run in (first, second)]
    if not math.isclose(*distances, rel_tol=BASELINE_TOLERANCE):
        reason = (
            f"are not scored alike: real images score {distances[0]:.4g} and {distances[1]:.4g}"
        )
        refuse(first, second, f"{reason}; the weights of the features or the data differ")


def check_are_repeats(arm: list[Run]) -> None:
    """Check that the runs of an arm differ in their seed and have the same validations."""
    by_seed: dict[int, Run] = {}
    for run in arm:
        if run.seed in by_seed:
            refuse(by_seed[run.seed], run, f"have the same label={run.label} and seed={run.seed}")
        if tuple(run.curve.images) != tuple(arm[0].curve.images):
            reason = f"have the same label={run.label}, but other scoring points or another budget"
            refuse(arm[0], run, reason)
        by_seed[run.seed] = run


def refuse(first: Run, second: Run, reason: str) -> NoReturn:
    """Report why two runs cannot be compared."""
    raise ValueError(f"runs: {first.folder} and {second.folder} {reason}")


def describe_arm(arm: list[Run]) -> dict[str, Any]:
    """Return the curves, start and end of an arm, over its seeds."""
    arm = sorted(arm, key=lambda run: run.seed)
    curve = median_curve([run.curve for run in arm])
    distances = zip(*(run.curve.distance for run in arm), strict=True)
    recalls = zip(*(run.curve.recall for run in arm), strict=True)
    scores = {
        "frechet_distance": [summarize(values) for values in distances],
        "recall": [summarize(values) for values in recalls],
    }
    axes = {"images": curve.images, "updates": curve.updates, "compute": curve.compute}
    return {
        "label": arm[0].label,
        "seeds": [run.seed for run in arm],
        "runs": [str(run.folder) for run in arm],
        "stage1_compute": summarize([run.stage1_compute for run in arm]),
        "start": {name: values[0] for name, values in scores.items()},
        "end": {name: values[-1] for name, values in (axes | scores).items()},
        "test": summarize_tags(run.metrics for run in arm),
        "worst_rise": {
            "median_curve": worst_rise(curve),
            "worst_seed": max(worst_rise(run.curve) for run in arm),
        },
        "curve": axes | scores,
    }


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and largest value."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def summarize_tags(metrics: Iterable[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Summarize every tag that all runs have."""
    runs = list(metrics)
    summaries = {}
    for tag in runs[0]:
        values = [run[tag] for run in runs if tag in run]
        if len(values) == len(runs):
            summaries[tag] = summarize(values)
    return summaries


def find_differing_settings(arms: dict[str, list[Run]]) -> dict[str, dict[str, list[str]]]:
    """Return the settings in which the runs differ: dotted key, then label, then JSON values."""
    configs = {}
    keys: dict[str, None] = {}  # an ordered set
    for label, arm in arms.items():
        configs[label] = [flatten(run.config) for run in arm]
        for config in configs[label]:
            keys |= dict.fromkeys(config)
    differing = {}
    for key in keys:
        values = {}
        for label, settings in configs.items():
            values[label] = sorted({json.dumps(config.get(key)) for config in settings})
        is_same = len(set().union(*values.values())) == 1
        if not is_same and key.split(".")[-1] not in REPEAT_KEYS:
            differing[key] = values
    return differing


def compare_arms(arm: list[Run], baseline: list[Run], criteria: Criteria) -> dict[str, Any]:
    """Compare the median curves of an arm and the baseline, and their curves of common seeds."""
    curve = median_curve([run.curve for run in arm])
    baseline_curve = median_curve([run.curve for run in baseline])
    if not last_common_validation(curve, baseline_curve):
        refuse(baseline[0], arm[0], "share no scoring point after the start")
    by_seed = {run.seed: run.curve for run in baseline}
    pairs = []
    for run in sorted(arm, key=lambda run: run.seed):
        if run.seed in by_seed:
            result = compare_to_baseline(run.curve, by_seed[run.seed], criteria)
            pairs.append({"seed": run.seed} | result)
    against_baseline = compare_to_baseline(curve, baseline_curve, criteria)
    return {"against_baseline": against_baseline, "seed_pairs": pairs}


def compare_to_baseline(arm: Curve, baseline: Curve, criteria: Criteria) -> dict[str, Any]:
    """Return ratios over all levels, worst rise, scores at the common end, and criteria met."""
    arm = insert_generator_start(arm)
    levels = [compare_at_level(arm, baseline, i) for i in find_improvements(baseline)]
    update_ratios = [level["updates_ratio"] for level in levels]
    compute_ratios = [level["compute_ratio"] for level in levels]
    has_fewer_updates = [ratio <= criteria.max_update_ratio for ratio in update_ratios]
    has_less_compute = [ratio < 1 for ratio in compute_ratios]
    rise = worst_rise(arm)
    images = last_common_validation(arm, baseline)
    i = arm.images.index(images)
    j = baseline.images.index(images)
    end = {
        "frechet_distance": [arm.distance[i], baseline.distance[j]],
        "recall": [arm.recall[i], baseline.recall[j]],
    }
    is_worse = [is_better(name, theirs, ours) for name, (ours, theirs) in end.items()]
    return {
        "update_ratio": summarize_ratios(update_ratios, has_fewer_updates),
        "compute_ratio": summarize_ratios(compute_ratios, has_less_compute),
        "worst_rise": rise,
        "common_end": {"images": images} | end,
        "criteria": {
            "fewer_updates": bool(levels) and all(has_fewer_updates),
            "never_worse_than_start": rise <= criteria.max_rise,
            "no_worse_at_end": not any(is_worse),
            "less_compute": bool(levels) and all(has_less_compute),
        },
        "levels": levels,
    }


def compare_at_level(arm: Curve, baseline: Curve, i: int) -> dict[str, float]:
    """Compare what an arm and the baseline need for the distance of the baseline's validation i."""
    level = baseline.distance[i]
    updates = first_crossing(arm.updates, arm.distance, level)
    compute = first_crossing(arm.compute, arm.distance, level)
    return {
        "frechet_distance": level,
        "updates": updates,
        "baseline_updates": baseline.updates[i],
        "updates_ratio": updates / baseline.updates[i],
        "compute": compute,
        "baseline_compute": baseline.compute[i],
        "compute_ratio": compute / baseline.compute[i],
    }


def summarize_ratios(ratios: list[float], is_met: list[bool]) -> dict[str, float]:
    """Return worst and median ratio, and the share of levels that meet the criterion, or nan."""
    if not ratios:
        return {"worst": math.nan, "median": math.nan, "share_met": math.nan}
    return {"worst": max(ratios), "median": median(ratios), "share_met": sum(is_met) / len(is_met)}
