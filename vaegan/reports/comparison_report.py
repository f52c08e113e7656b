"""Markdown report and figure for a comparison of runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaegan.reports.figures import (
    COLORS,
    DASHES,
    REFERENCE_COLOR,
    escape,
    make_figure,
    save_png,
    style_axes,
    use_readable_log_scale,
)
from vaegan.reports.tables import format_number, markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Styles = dict[str, tuple[str, str]]  # color and line style by label

LEGEND = """\
{name} ({short}): on the val split, as median over seeds [min, max]. Test {short}: on the test
split, of the checkpoint with the lowest {short}. Updates, compute: amount needed to reach each
{short} level of {baseline}, relative to {baseline}, as median / worst over levels. Worst rise:
largest {short} relative to the initial {short}, of the median curve (and of the worst seed).
Criteria: evaluated on the median curves (in parentheses: number of seeds that meet them, of those
shared with {baseline}):
"""
SHORT_NAMES = {"frechet_distance": "FD", "combined_distance": "CD", "kernel_distance": "KD"}
AXIS_LABELS = {
    "images": "real images seen",
    "compute": "PFLOP, VAE included",
    "frechet_distance": "Fréchet distance",
    "combined_distance": "combined distance",
    "kernel_distance": "kernel distance",
    "recall": "recall",
}


def write_markdown(report: dict[str, Any]) -> str:
    """Return the report: a table for each panel, and a legend of the columns."""
    baseline = report["baseline"]
    lines = [f"# Comparison with {baseline}", ""]
    for panel in report["panels"]:
        lines += describe_panel(panel, baseline, list(report["criteria"]))
    for monitor in dict.fromkeys(panel["monitor"] for panel in report["panels"]):
        name = to_words(monitor).capitalize()
        lines.append(LEGEND.format(baseline=baseline, name=name, short=SHORT_NAMES[monitor]))
    lines += [f"- {to_words(name)}: {text}" for name, text in report["criteria"].items()]
    return "\n".join(lines) + "\n"


def describe_panel(panel: dict[str, Any], baseline: str, criteria: list[str]) -> list[str]:
    """Return the table of a panel, and the settings that differ between its runs."""
    monitor = panel["monitor"]
    short = SHORT_NAMES[monitor]
    numbers = ["seeds", "VAE PFLOP", f"{short} start → end", "recall at end", f"test {short}"]
    numbers += [f"{name} vs {baseline}: median / worst" for name in ("updates", "compute")]
    numbers.append("worst rise")
    names = ["arm", *numbers, *map(to_words, criteria)]
    rows = [make_row(arm, criteria, monitor) for arm in panel["arms"]]
    real_scores = [
        f"{name} {format_number(value['median'])}" for name, value in panel["real_vs_real"].items()
    ]
    extractor = panel["feature_extractor"]
    lines = [f"## {panel['dataset']}, {panel['num_images']} images, features of {extractor}", ""]
    lines += [f"Real images against real images: {', '.join(real_scores)}", ""]
    lines += [*markdown_table(names, rows, right_aligned=numbers), ""]
    ends = {arm["label"]: f"{arm['end']['images']:.0f}" for arm in panel["arms"]}
    if len(set(ends.values())) > 1:
        images_seen = ", ".join(f"{label} {images}" for label, images in ends.items())
        common = f"Criteria at the end use the last validation shared with {baseline}."
        lines += [f"Images seen: {images_seen}. {common}", ""]
    for key, values_by_label in panel["settings"].items():
        values = [f"{label} {' or '.join(values)}" for label, values in values_by_label.items()]
        lines.append(f"- `{key}`: {'; '.join(values)}")
    return [*lines, ""] if panel["settings"] else lines


def make_row(arm: dict[str, Any], criteria: list[str], monitor: str) -> list[str]:
    """Return the table cells of an arm."""
    start = format_interval(arm["start"][monitor])
    end = format_interval(arm["end"][monitor])
    test = arm["test"].get(f"test/{monitor}")
    rise = {name: format_number(value) for name, value in arm["worst_rise"].items()}
    cells = [
        arm["label"],
        str(len(arm["seeds"])),
        format_interval(arm["stage1_compute"]),
        f"{start} → {end}",
        format_interval(arm["end"]["recall"]),
        format_interval(test) if test else "–",
    ]
    rises = f"{rise['median_curve']} ({rise['worst_seed']})"
    if "against_baseline" not in arm:
        return [*cells, "1 / 1", "1 / 1", rises, *[""] * len(criteria)]
    result = arm["against_baseline"]
    pairs = arm["seed_pairs"]
    for ratio in (result["update_ratio"], result["compute_ratio"]):
        cells.append(f"{format_ratio(ratio['median'])} / {format_ratio(ratio['worst'])}")
    cells.append(rises)
    for name in criteria:
        is_met = "yes" if result["criteria"][name] else "no"
        num_met = sum(pair["criteria"][name] for pair in pairs)
        by_seed = f"{num_met}/{len(pairs)}" if pairs else "no common seed"
        cells.append(f"{is_met} ({by_seed})")
    return cells


def to_words(name: str) -> str:
    """Return the name of a criterion with spaces."""
    return name.replace("_", " ")


def format_ratio(value: float) -> str:
    """Format a ratio: infinity means a level was never reached, nan that there are no levels."""
    if math.isinf(value):
        return "not reached"
    return "no levels" if math.isnan(value) else format_number(value)


def format_interval(values: dict[str, float]) -> str:
    """Format as median [min, max]."""
    middle, low, high = (format_number(values[key]) for key in ("median", "min", "max"))
    return middle if values["min"] == values["max"] else f"{middle} [{low}, {high}]"


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw one row of plots per panel: median curves with bands from min to max over seeds."""
    panels = report["panels"]
    labels = dict.fromkeys(arm["label"] for panel in panels for arm in panel["arms"])
    others = [label for label in labels if label != report["baseline"]]
    styles = {report["baseline"]: (REFERENCE_COLOR, "-")}
    for i, label in enumerate(others):
        dashes = DASHES[i // len(COLORS) % len(DASHES)]
        styles[label] = (COLORS[i % len(COLORS)], dashes)
    figure = make_figure(11, 3.5 * len(panels))
    rows = figure.subfigures(len(panels), 1, squeeze=False)[:, 0]
    for panel, row in zip(panels, rows, strict=True):
        monitor = panel["monitor"]
        pairs = (("images", monitor), ("compute", monitor), ("images", "recall"))
        plots = row.subplots(1, len(pairs))
        for (x, y), axes in zip(pairs, plots, strict=True):
            draw_curves(axes, panel, x, y, styles)
        legend = row.legend(
            *plots[0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=5,
            frameon=False,
            title=escape(f"{panel['dataset']}, features of {panel['feature_extractor']}"),
        )
        legend.set_alignment("left")
    save_png(figure, path)


def draw_curves(axes: Axes, panel: dict[str, Any], x: str, y: str, styles: Styles) -> None:
    """Plot a score of every arm against the x quantity."""
    from matplotlib.ticker import EngFormatter

    for arm in panel["arms"]:
        color, dashes = styles[arm["label"]]
        positions = arm["curve"][x]
        lines = {}
        for key in ("median", "min", "max"):
            values = [point[key] for point in arm["curve"][y]]
            lines[key] = [value if math.isfinite(value) else math.nan for value in values]
        num_seeds = len(arm["seeds"])
        label = f"{escape(arm['label'])} ({num_seeds} seed{'s' * (num_seeds > 1)})"
        axes.fill_between(
            positions, lines["min"], lines["max"], color=color, alpha=0.18, linewidth=0
        )
        axes.plot(positions, lines["median"], dashes, color=color, linewidth=1.6, label=label)
    if y in panel["real_vs_real"]:
        level = panel["real_vs_real"][y]["median"]
        axes.axhline(level, color="black", linestyle=":", linewidth=1, label="real images")
    lowest = min(point["min"] for arm in panel["arms"] for point in arm["curve"][y])
    if y == panel["monitor"] and lowest > 0:  # an unbiased kernel distance can be negative
        use_readable_log_scale(axes)
    if x == "images":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(AXIS_LABELS[x])
    axes.set_ylabel(AXIS_LABELS[y])
    style_axes(axes)
