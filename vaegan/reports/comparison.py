"""Compare GAN runs with a baseline, such as warm starts with cold starts. No file access.

Runs on the same data set and scored with the same feature extractor form a panel. Within a panel,
runs with the same label form an arm: they differ only in the random seed, and the curve of the arm
is their pointwise median. Let u be the number of generator updates, d(u) the metric of an arm that
selects its best checkpoints (Frechet, combined or kernel distance), interpolated linearly between
validations, and d_b that of the baseline:

    levels         d_b(u_b) at each validation with u_b > 0 that is lower than all earlier d_b
    update ratio   min{u : d(u) <= level} / u_b for each level; infinite if never reached
    compute ratio  the same ratio in PFLOP, including the training of the VAE
    worst rise     max_u d(u) / d(0)

Linear interpolation of a convex curve lies above the curve, so the crossing of an arm is estimated
too late, never too early. During the discriminator warm-up the curve is flat, which breaks
convexity; the point where the generator starts is therefore inserted. The crossings of the baseline
lie at validations and are therefore exact.
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

REPEAT_KEYS = ("label", "seed", "vae_ckpt", "sweep_metric")  # may differ within an arm
# Relative tolerance: above rounding differences between devices, below differences of features.
BASELINE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Criteria:
    """Baseline, and the thresholds that an arm must meet relative to it."""

    baseline: str  # label of the baseline arm
    max_update_ratio: float  # largest allowed update ratio, at every level
    max_rise: float  # largest allowed worst rise

    def describe(self) -> dict[str, str]:
        """Return a description of each criterion, by name."""
        return {
            "fewer_updates": f"at most {self.max_update_ratio:g} times the generator updates of "
            "the baseline, at every level",
            "never_worse_than_start": f"distance never above {self.max_rise:.2f} times its initial "
            "value",
            "no_worse_at_end": "distance and recall at the end no worse than the baseline's",
            "less_compute": "less compute than the baseline at every level, including the VAE",
        }


def compare_runs(runs: Sequence[Run], criteria: Criteria) -> dict[str, Any]:
    """Compare every arm of every panel with the baseline arm of the same panel.

    Returns:
        Content of comparison.json; infinity and nan are not yet replaced by null.

    Raises:
        ValueError: There are no runs, a panel has no baseline, or two runs are not comparable.
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
    """Compare the arms of a panel: the baseline first, the others in order of VAE compute."""
    runs = [run for arm in arms.values() for run in arm]
    baseline = criteria.baseline
    expected = f"the label of a run on {runs[0].dataset}, one of {', '.join(sorted(arms))}"
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
        "monitor": runs[0].monitor,
        "num_images": runs[0].num_images,
        "real_vs_real": summarize_tags(run.real_vs_real for run in runs),
        "settings": find_differing_settings(arms),
        "arms": reports,
    }


def check_is_comparable(first: Run, second: Run) -> None:
    """Check that two runs of a panel were scored in the same way."""
    if first.num_images != second.num_images:
        reason = "were scored on different numbers of images, on which the distances depend"
        raise_not_comparable(first, second, reason)
    if first.monitor != second.monitor:
        reason = f"were selected by different metrics: {first.monitor} and {second.monitor}"
        raise_not_comparable(first, second, reason)
    distances = [run.real_vs_real[run.monitor] for run in (first, second)]
    if not math.isclose(*distances, rel_tol=BASELINE_TOLERANCE, abs_tol=1e-6):
        reason = (
            f"were scored differently: their real images have {first.monitor.replace('_', ' ')}s "
            f"{distances[0]:.4g} and {distances[1]:.4g}; the feature extractor or the data differ"
        )
        raise_not_comparable(first, second, reason)


def check_are_repeats(arm: list[Run]) -> None:
    """Check that the runs of an arm have different seeds and the same validations."""
    by_seed: dict[int, Run] = {}
    for run in arm:
        if run.seed in by_seed:
            reason = f"have the same label={run.label} and seed={run.seed}"
            raise_not_comparable(by_seed[run.seed], run, reason)
        if tuple(run.curve.images) != tuple(arm[0].curve.images):
            reason = f"have the same label={run.label}, but not the same validations or duration"
            raise_not_comparable(arm[0], run, reason)
        by_seed[run.seed] = run


def raise_not_comparable(first: Run, second: Run, reason: str) -> NoReturn:
    """Raise a ValueError that says why two runs cannot be compared."""
    raise ValueError(f"runs: {first.folder} and {second.folder} {reason}")


def describe_arm(arm: list[Run]) -> dict[str, Any]:
    """Return the curves, initial scores and final scores of an arm, over its seeds."""
    arm = sorted(arm, key=lambda run: run.seed)
    curve = median_curve([run.curve for run in arm])
    distances = zip(*(run.curve.distance for run in arm), strict=True)
    recalls = zip(*(run.curve.recall for run in arm), strict=True)
    scores = {
        arm[0].monitor: [summarize(values) for values in distances],
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
    """Return the median, minimum and maximum."""
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
    """Return the settings that differ between runs: JSON values by dotted key, then label."""
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
    """Compare an arm with the baseline: the median curves, and the curves of common seeds."""
    curve = median_curve([run.curve for run in arm])
    baseline_curve = median_curve([run.curve for run in baseline])
    if not last_common_validation(curve, baseline_curve):
        reason = "have no validation in common after the start"
        raise_not_comparable(baseline[0], arm[0], reason)
    by_seed = {run.seed: run.curve for run in baseline}
    monitor = arm[0].monitor
    pairs = []
    for run in sorted(arm, key=lambda run: run.seed):
        if run.seed in by_seed:
            result = compare_to_baseline(run.curve, by_seed[run.seed], criteria, monitor)
            pairs.append({"seed": run.seed} | result)
    against_baseline = compare_to_baseline(curve, baseline_curve, criteria, monitor)
    return {"against_baseline": against_baseline, "seed_pairs": pairs}


def compare_to_baseline(
    arm: Curve, baseline: Curve, criteria: Criteria, monitor: str = "frechet_distance"
) -> dict[str, Any]:
    """Return ratios at all levels, worst rise, scores at the common end, and criteria met."""
    arm = insert_generator_start(arm)
    levels = [compare_at_level(arm, baseline, i, monitor) for i in find_improvements(baseline)]
    update_ratios = [level["updates_ratio"] for level in levels]
    compute_ratios = [level["compute_ratio"] for level in levels]
    has_fewer_updates = [ratio <= criteria.max_update_ratio for ratio in update_ratios]
    has_less_compute = [ratio < 1 for ratio in compute_ratios]
    rise = worst_rise(arm)
    images = last_common_validation(arm, baseline)
    i = arm.images.index(images)
    j = baseline.images.index(images)
    end = {
        monitor: [arm.distance[i], baseline.distance[j]],
        "recall": [arm.recall[i], baseline.recall[j]],
    }
    is_worse = [is_better(name, reference, value) for name, (value, reference) in end.items()]
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


def compare_at_level(arm: Curve, baseline: Curve, i: int, monitor: str) -> dict[str, float]:
    """Compare the cost of an arm and the baseline to reach the baseline's distance at index i."""
    level = baseline.distance[i]
    updates = first_crossing(arm.updates, arm.distance, level)
    compute = first_crossing(arm.compute, arm.distance, level)
    return {
        monitor: level,
        "updates": updates,
        "baseline_updates": baseline.updates[i],
        "updates_ratio": updates / baseline.updates[i],
        "compute": compute,
        "baseline_compute": baseline.compute[i],
        "compute_ratio": compute / baseline.compute[i],
    }


def summarize_ratios(ratios: list[float], is_met: list[bool]) -> dict[str, float]:
    """Return the worst and median ratio and the fraction of levels that meet the criterion.

    All values are nan if there are no levels.
    """
    if not ratios:
        return {"worst": math.nan, "median": math.nan, "share_met": math.nan}
    return {"worst": max(ratios), "median": median(ratios), "share_met": sum(is_met) / len(is_met)}
