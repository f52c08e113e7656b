"""The end of a sweep: its jobs as a table, as Markdown, as CSV and as a figure, from their outcome.json alone."""

from __future__ import annotations

import csv
import math
import re
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from vaegan.runtime.paths import display_path
from vaegan.sweeps.outcome import FILE, Outcome, read_outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes


UP = "elbo iw_bound log_likelihood precision recall density coverage class_coverage inception_score active_units"
DOWN = "nll kl bits_per_dim frechet_distance kernel_distance class_kl"
SIGNS = dict.fromkeys(UP.split(), 1) | dict.fromkeys(
    DOWN.split(), -1
)  # by the tag without its split
COLOR, BEST_COLOR, MEDIAN_COLOR = "#0072b2", "#d55e00", "#3b3b3b"
LOG_SPAN = 30  # largest over smallest value, from which on an axis is logarithmic
Jobs = dict[str, Outcome]  # by folder


def summarize(sweep_dir: Path) -> Jobs:
    """Write summary.md, .csv and .png, and print a table.

    Args:
        sweep_dir: Folder of the sweep; jobs are the folders under it that have an outcome.json.

    Returns:
        All jobs. One whose outcome.json is damaged counts as failed.
    """
    jobs = read_jobs(sweep_dir)
    if not jobs:
        return jobs
    keys, best = varying(jobs), best_jobs(jobs)
    names = ["job", *keys, "status", "metric", "value", ""]
    rows = [row(name, job, keys, name in best) for name, job in jobs.items()]
    failures = [
        f"job {name} failed: {job.error}" for name, job in jobs.items() if job.status == "failed"
    ]
    write_csv(jobs, keys, sweep_dir / "summary.csv")
    write_markdown(names, rows, failures, sweep_dir / "summary.md")
    files = ["summary.md", "summary.csv"]
    if any(job.value is not None for job in jobs.values()):
        draw(
            {name: job for name, job in jobs.items() if job.value is not None},
            best,
            sweep_dir / "summary.png",
        )
        files.append("summary.png")
    table = Table(*names, box=None, padding=(0, 2, 0, 0))
    for cells in rows:
        table.add_row(*cells)
    console = Console(
        soft_wrap=True, highlight=False, markup=False, width=1000
    )  # long rows are wrapped, not cut
    console.print("", f"sweep {display_path(sweep_dir)}", sep="\n")
    console.print(table)
    console.print(
        *failures,
        f"also in {', '.join(display_path(sweep_dir / file) for file in files)}",
        sep="\n",
    )
    return jobs


def read_jobs(sweep_dir: Path) -> Jobs:
    """Outcomes by folder, 2 before 10."""
    jobs = {}
    for path in sweep_dir.rglob(FILE):
        name = path.parent.relative_to(sweep_dir).as_posix()
        try:
            found = read_outcome(path.parent)
        except ValueError as error:
            found = Outcome("failed", [], {}, "", None, {}, str(error))
        if found is not None:
            jobs[name] = found
    return dict(
        sorted(
            jobs.items(), key=lambda job: [int(part or 0) for part in re.findall(r"\d+", job[0])]
        )
    )


def overrides_of(job: Outcome) -> dict[str, str]:
    """Value by key, as typed."""
    return {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in job.overrides}


def varying(jobs: Jobs) -> list[str]:
    """Keys that not all jobs set to the same value, in the order of the command line."""
    to_run_config = [overrides_of(job) for job in jobs.values() if job.overrides]
    keys = dict.fromkeys(key for words in to_run_config for key in words)
    return [key for key in keys if len({words.get(key) for words in to_run_config}) > 1]


def best_jobs(jobs: Jobs) -> set[str]:
    """The best job of each metric whose direction is known."""
    best = set()
    for tag in dict.fromkeys(job.metric for job in jobs.values()):
        values = {
            name: job.value
            for name, job in jobs.items()
            if job.metric == tag and job.value is not None
        }
        sign = SIGNS.get(tag.rpartition("/")[2])
        if values and sign is not None:
            best.add(max(values, key=lambda name: sign * values[name]))
    return best


def row(name: str, job: Outcome, keys: list[str], is_best: bool) -> list[str]:
    """Cells of a job."""
    cells = [short(overrides_of(job).get(key, "")) for key in keys]
    value = "" if job.value is None else f"{job.value:.6g}"
    return [name, *cells, job.status, job.metric, value, "best" if is_best else ""]


def short(text: str) -> str:
    """A value as typed, but of a long number 4 digits."""
    found = numbers((text,))
    return f"{found[0]:.4g}" if found and len(text) > 8 else text


def write_markdown(
    names: list[str], rows: list[list[str]], failures: list[str], path: Path
) -> None:
    """Table of the jobs, and what went wrong."""
    lines = [names, ["---"] * len(names), *rows]
    table = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines
    ]
    path.write_text(
        "\n".join(["# Sweep", "", *table, "", *failures]).rstrip() + "\n", encoding="utf-8"
    )


def write_csv(jobs: Jobs, keys: list[str], path: Path) -> None:
    """A line for each job, with all of its metrics."""
    tags = sorted({tag for job in jobs.values() for tag in job.metrics})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, "status", "metric", "value", *tags, "error"])
        for name, job in jobs.items():
            words = [overrides_of(job).get(key, "") for key in keys]
            metrics = [job.metrics.get(tag) for tag in tags]
            writer.writerow([name, *words, job.status, job.metric, job.value, *metrics, job.error])


def draw(jobs: Jobs, best: set[str], path: Path) -> None:
    """Figure of jobs that have a value: a row for each metric, a panel for each override that varies but the seed."""
    from matplotlib.figure import Figure  # slow to import

    keys = varying(jobs) or ["job"]
    keys = [key for key in keys if key != "seed"] or keys
    tags = sorted({job.metric for job in jobs.values()})
    figure = Figure(figsize=(max(4.5, 3.4 * len(keys)), 3.2 * len(tags)), layout="constrained")
    panels = figure.subplots(len(tags), len(keys), squeeze=False, sharey="row")
    for tag, axes in zip(tags, panels, strict=True):
        for key, axis in zip(keys, axes, strict=True):
            draw_panel(axis, jobs, key, tag, best)
        axes[0].set_ylabel(tag)
    found = [axis.get_legend_handles_labels() for axis in panels.flat]
    labels = {
        label: handle
        for handles, names in found
        for handle, label in zip(handles, names, strict=True)
    }
    figure.legend(labels.values(), labels.keys(), loc="outside upper left", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


def draw_panel(axis: Axes, jobs: Jobs, key: str, tag: str, best: set[str]) -> None:
    """A metric along one override: all jobs, and where a value has several, their median."""
    here = {name: job for name, job in jobs.items() if job.metric == tag}
    texts = tuple(
        (overrides_of(job) | {"job": name}).get(key, "(unset)") for name, job in here.items()
    )
    values = [job.value for job in here.values() if job.value is not None]  # all of them
    places = lay_out(axis, texts)
    if spans(values):
        axis.set_yscale("log")
    axis.plot(places, values, "o", color=COLOR, alpha=0.7, markersize=5, label="a job")
    by_place: dict[float, list[float]] = {}
    for place, value in zip(places, values, strict=True):
        by_place.setdefault(place, []).append(value)
    medians = {place: statistics.median(found) for place, found in sorted(by_place.items())}
    if len(medians) < len(places):
        style = "_-" if numbers(texts) else "_"  # categories are not joined
        axis.plot(
            [*medians],
            [*medians.values()],
            style,
            markersize=16,
            color=MEDIAN_COLOR,
            label="median",
        )
    top = [point for name, *point in zip(here, places, values, strict=True) if name in best]
    if top:
        axis.plot(
            *zip(*top, strict=True),
            "*",
            color=BEST_COLOR,
            markersize=13,
            linestyle="",
            label="best",
        )
    axis.set_xlabel(key)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)


def lay_out(axis: Axes, texts: tuple[str, ...]) -> list[float]:
    """Places of values along an axis: of numbers as they are, of others as categories."""
    places = numbers(texts)
    if places:
        if spans(places):
            axis.set_xscale("log")
        return places
    categories = sorted(set(texts))
    axis.set_xticks(
        range(len(categories)),
        [c if len(c) < 16 else f"{c[:14]}…" for c in categories],
        rotation=30,
    )
    axis.margins(x=0.2)
    return [float(categories.index(text)) for text in texts]


def numbers(texts: tuple[str, ...]) -> list[float] | None:
    """The values of an override as numbers, if all are."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def spans(values: tuple[float, ...] | list[float]) -> bool:
    """Whether they want a logarithmic axis."""
    return min(values) > 0 and max(values) > LOG_SPAN * min(values)
