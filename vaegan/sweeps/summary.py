"""Summarize the jobs of a sweep as a table and a figure, from their outcome.json files."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from vaegan.metrics.metric_table import METRICS
from vaegan.reports.figures import (
    COLORS,
    REFERENCE_COLOR,
    make_figure,
    needs_log_scale,
    save_png,
    style_axes,
)
from vaegan.reports.tables import markdown_table, print_lines, text_table, write_csv
from vaegan.runtime.paths import display_path
from vaegan.sweeps.outcome import OUTCOME_FILE, Outcome, read_outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JOB_COLOR, BEST_COLOR = COLORS[:2]
MAX_LABEL_LENGTH = 15  # characters of a category label on an axis
Jobs = dict[str, Outcome]  # outcomes by job folder


def summarize(sweep_dir: Path) -> Jobs:
    """Write summary.md, summary.csv and summary.png, and print the table.

    Args:
        sweep_dir: Folder of the sweep; each folder below it with an outcome.json is a job.

    Returns:
        All jobs. A job with a damaged outcome.json counts as failed.
    """
    jobs = read_jobs(sweep_dir)
    if not jobs:
        return jobs
    keys = find_varying_keys(jobs)
    best = find_best_jobs(jobs)
    names = ["job", *keys, "status", "metric", "value", ""]
    rows = [make_row(name, job, keys, name in best) for name, job in jobs.items()]
    failures = [f"job {name} failed: {j.error}" for name, j in jobs.items() if j.status == "failed"]
    markdown = ["# Sweep", "", *markdown_table(names, rows), "", *failures]
    text = "\n".join(markdown).rstrip() + "\n"
    (sweep_dir / "summary.md").write_text(text, encoding="utf-8")
    write_jobs_csv(jobs, keys, sweep_dir / "summary.csv")
    files = ["summary.md", "summary.csv"]
    jobs_with_value = {name: job for name, job in jobs.items() if job.value is not None}
    if jobs_with_value:
        draw(jobs_with_value, best, sweep_dir / "summary.png")
        files.append("summary.png")
    paths = ", ".join(display_path(sweep_dir / file) for file in files)
    table = text_table(names, rows)
    print_lines("", f"sweep {display_path(sweep_dir)}", *table, *failures, f"saved to {paths}")
    return jobs


def read_jobs(sweep_dir: Path) -> Jobs:
    """Read outcomes by folder, in numerical order: 2 before 10."""
    jobs = {}
    for path in sweep_dir.rglob(OUTCOME_FILE):
        name = path.parent.relative_to(sweep_dir).as_posix()
        try:
            outcome = read_outcome(path.parent)
        except ValueError as error:
            outcome = Outcome("failed", [], {}, "", None, {}, str(error))
        if outcome is not None:
            jobs[name] = outcome

    def numbers_in(name: str) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", name)]

    return {name: jobs[name] for name in sorted(jobs, key=numbers_in)}


def overrides_of(job: Outcome) -> dict[str, str]:
    """Return the override values of a job by key, as typed."""
    overrides = {}
    for override in job.overrides:
        key, _, value = override.partition("=")
        overrides[key.lstrip("+")] = value
    return overrides


def find_varying_keys(jobs: Jobs) -> list[str]:
    """Return the keys whose values differ between jobs, in the order of the command line."""
    all_overrides = [overrides_of(job) for job in jobs.values() if job.overrides]
    keys = dict.fromkeys(key for overrides in all_overrides for key in overrides)
    varying = []
    for key in keys:
        values = {overrides.get(key) for overrides in all_overrides}
        if len(values) > 1:
            varying.append(key)
    return varying


def find_best_jobs(jobs: Jobs) -> set[str]:
    """Return the best job for each metric that has a direction."""
    values_by_tag: dict[str, dict[str, float]] = {}
    for name, job in jobs.items():
        if job.value is not None:
            values_by_tag.setdefault(job.metric, {})[name] = job.value
    best = set()
    for tag, values in values_by_tag.items():
        metric = METRICS.get(tag.rpartition("/")[2])
        if metric is not None and metric.direction is not None:
            choose = min if metric.direction == "min" else max
            best.add(choose(values, key=values.__getitem__))
    return best


def make_row(name: str, job: Outcome, keys: list[str], is_best: bool) -> list[str]:
    """Return the table cells of a job."""
    overrides = overrides_of(job)
    cells = [shorten_number(overrides.get(key, "")) for key in keys]
    value = "" if job.value is None else f"{job.value:.6g}"
    return [name, *cells, job.status, job.metric, value, "best" if is_best else ""]


def shorten_number(text: str) -> str:
    """Return a value as typed, except that long numbers are rounded to 4 significant digits."""
    numbers = to_numbers([text])
    return f"{numbers[0]:.4g}" if numbers and len(text) > 8 else text


def write_jobs_csv(jobs: Jobs, keys: list[str], path: Path) -> None:
    """Write one line per job, with all of its metrics."""
    tags = sorted({tag for job in jobs.values() for tag in job.metrics})
    rows = []
    for name, job in jobs.items():
        overrides = overrides_of(job)
        values = [overrides.get(key, "") for key in keys]
        metrics = [job.metrics.get(tag) for tag in tags]
        rows.append([name, *values, job.status, job.metric, job.value, *metrics, job.error])
    write_csv(path, ["job", *keys, "status", "metric", "value", *tags, "error"], rows)


def draw(jobs: Jobs, best: set[str], path: Path) -> None:
    """Draw all jobs: one row of plots per metric, one plot per varying key except the seed."""
    keys = find_varying_keys(jobs) or ["job"]
    keys = [key for key in keys if key != "seed"] or keys
    tags = sorted({job.metric for job in jobs.values()})
    figure = make_figure(max(4.5, 3.4 * len(keys)), 3.2 * len(tags))
    plots = figure.subplots(len(tags), len(keys), squeeze=False, sharey="row")
    handles = {}
    for tag, row in zip(tags, plots, strict=True):
        jobs_of_tag = {name: job for name, job in jobs.items() if job.metric == tag}
        for key, axes in zip(keys, row, strict=True):
            draw_metric(axes, jobs_of_tag, key, best)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles[label] = handle
        row[0].set_ylabel(tag)
    labels = list(handles)
    figure.legend(handles.values(), labels, loc="outside upper left", ncols=3, frameon=False)
    save_png(figure, path)


def draw_metric(axes: Axes, jobs: Jobs, key: str, best: set[str]) -> None:
    """Plot a metric against a key: all jobs, medians of repeated values, and the best job."""
    texts = [(overrides_of(job) | {"job": name}).get(key, "(unset)") for name, job in jobs.items()]
    values = [job.value for job in jobs.values() if job.value is not None]  # never None here
    positions = set_up_x_axis(axes, texts)
    if needs_log_scale(values):
        axes.set_yscale("log")
    axes.plot(positions, values, "o", color=JOB_COLOR, alpha=0.7, markersize=5, label="job")
    values_by_position: dict[float, list[float]] = {}
    for position, value in zip(positions, values, strict=True):
        values_by_position.setdefault(position, []).append(value)
    if len(values_by_position) < len(positions):
        x = sorted(values_by_position)
        medians = [statistics.median(values_by_position[position]) for position in x]
        style = "_-" if to_numbers(texts) else "_"  # no line between categories
        axes.plot(x, medians, style, markersize=16, color=REFERENCE_COLOR, label="median")
    best_indices = [i for i, name in enumerate(jobs) if name in best]
    if best_indices:
        x = [positions[i] for i in best_indices]
        y = [values[i] for i in best_indices]
        axes.plot(x, y, "*", color=BEST_COLOR, markersize=13, linestyle="", label="best")
    axes.set_xlabel(key)
    style_axes(axes)


def set_up_x_axis(axes: Axes, texts: list[str]) -> list[float]:
    """Return positions on the x-axis: numbers as they are, other values as categories."""
    numbers = to_numbers(texts)
    if numbers:
        if needs_log_scale(numbers):
            axes.set_xscale("log")
        return numbers
    categories = sorted(set(texts))
    labels = [c if len(c) <= MAX_LABEL_LENGTH else f"{c[:14]}…" for c in categories]
    axes.set_xticks(range(len(categories)), labels, rotation=30)
    axes.margins(x=0.2)
    return [float(categories.index(text)) for text in texts]


def to_numbers(texts: list[str]) -> list[float] | None:
    """Convert texts to numbers; None if any text is not a finite number."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
