"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaegan.reports.comparison import AIMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


BASELINE_COLOR = "#3b3b3b"
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # told apart by the color-blind: Okabe & Ito
DASHES = ("-", "--", "-.")


def finite(value: Any) -> Any:
    """The same, with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(report: dict[str, Any]) -> str:
    """The comparison for a reader: a table for each panel, and what its columns mean."""
    baseline = report["baseline"]
    lines = [f"# Against {baseline}", ""]
    for panel in report["panels"]:
        lines += section(panel, baseline)
    lines += [
        "FD: Frechet distance on the val split; medians over seeds [least, largest]. Test FD: of the checkpoint whose",
        f"FD is least. Updates, compute: what an arm needs for each FD that {baseline} reaches, over {baseline}'s,",
        "as median / worst over these FD. Worst rise: largest FD over the first, of the median curve (and of the worst",
        "seed). By seed: seeds that meet each aim against the same seed of the baseline. Aims, on the median curves:",
        "",
        *(f"- {letter}: {aim}" for letter, aim in AIMS.items()),
    ]
    return "\n".join(lines) + "\n"


def section(panel: dict[str, Any], baseline: str) -> list[str]:
    """Table of a panel, and what its runs differ in."""
    names = ["arm", "seeds", "stage-1 PFLOP", "FD start → end", "recall at end", "test FD"]
    names += [f"{what} vs {baseline}: median / worst" for what in ("updates", "compute")]
    names += ["worst rise", "aims met", "by seed"]
    floor = ", ".join(
        f"{name} {number(value['median'])}" for name, value in panel["real_vs_real"].items()
    )
    ends = {arm["label"]: f"{arm['end']['images']:.0f}" for arm in panel["arms"]}
    lines = [
        f"## {panel['dataset']}, {panel['num_images']} images, feature_extractor={panel['feature_extractor']}",
        "",
    ]
    lines += [f"Floor (real images against real ones): {floor}", ""]
    lines += [cells(names), cells(["---", *["---:"] * 8, "---", "---"])]
    lines += [cells(row(arm)) for arm in panel["arms"]] + [""]
    if len(set(ends.values())) > 1:
        budgets = ", ".join(f"{label} {images}" for label, images in ends.items())
        lines += [
            f"Images seen: {budgets}. Aim c is judged at the last point shared with {baseline}.",
            "",
        ]
    for key, values in panel["settings"].items():
        lines.append(
            f"- `{key}`: "
            + "; ".join(f"{label} {' or '.join(found)}" for label, found in values.items())
        )
    return [*lines, ""] if panel["settings"] else lines


def row(arm: dict[str, Any]) -> list[str]:
    """Cells of an arm."""
    start, end, test, rise = arm["start"], arm["end"], arm["test"], arm["worst_rise"]
    found = [
        arm["label"],
        str(len(arm["seeds"])),
        interval(arm["stage1_compute"]),
        f"{interval(start['frechet_distance'])} → {interval(end['frechet_distance'])}",
        interval(end["recall"]),
        interval(test["test/frechet_distance"]) if "test/frechet_distance" in test else "–",
    ]
    rises = f"{number(rise['median_curve'])} ({number(rise['worst_seed'])})"
    if "against_baseline" not in arm:
        return [*found, "1 / 1", "1 / 1", rises, "", ""]
    result, pairs = arm["against_baseline"], arm["seed_pairs"]
    ratios = [
        f"{ratio(of['median'])} / {ratio(of['worst'])}"
        for of in (result["update_ratio"], result["compute_ratio"])
    ]
    aims = " ".join(letter if is_met else "–" for letter, is_met in result["aims"].items())
    by_seed = " ".join(
        f"{sum(pair['aims'][letter] for pair in pairs)}/{len(pairs)}" for letter in AIMS
    )
    return [*found, *ratios, rises, aims, by_seed if pairs else "no common seed"]


def cells(values: list[str]) -> str:
    """Row of a Markdown table."""
    return f"| {' | '.join(value.replace('|', chr(92) + '|') for value in values)} |"


def number(value: float) -> str:
    """3 digits that count, without an exponent where that is readable."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio to the baseline; infinite where a level is never reached, nan where there is none."""
    return (
        "not reached" if math.isinf(value) else "no level" if math.isnan(value) else number(value)
    )


def interval(values: dict[str, float]) -> str:
    """Median [least, largest]."""
    if values["min"] == values["max"]:
        return number(values["median"])
    return f"{number(values['median'])} [{number(values['min'])}, {number(values['max'])}]"


def draw(report: dict[str, Any], path: Path) -> None:
    """Figure: a row for each panel; median curves, and bands from the least to the largest seed."""
    from matplotlib.figure import Figure  # slow to import, and of no use to other stages
    from PIL import Image

    panels = report["panels"]
    others = [
        arm["label"]
        for panel in panels
        for arm in panel["arms"]
        if arm["label"] != report["baseline"]
    ]
    styles = {
        label: (COLORS[i % 6], DASHES[i // 6 % 3]) for i, label in enumerate(dict.fromkeys(others))
    }
    styles[report["baseline"]] = (BASELINE_COLOR, "-")
    figure = Figure(figsize=(11, 3.5 * len(panels)), layout="constrained")
    views = (("images", "frechet_distance"), ("compute", "frechet_distance"), ("images", "recall"))
    for panel, part in zip(
        panels, figure.subfigures(len(panels), 1, squeeze=False)[:, 0], strict=True
    ):
        axes = part.subplots(1, 3)
        for (x, y), axis in zip(views, axes, strict=True):
            draw_panel(axis, panel, x, y, styles)
        title = f"{panel['dataset']}, feature_extractor={panel['feature_extractor']}".replace(
            "$", r"\$"
        )
        legend = part.legend(
            *axes[0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=5,
            frameon=False,
            title=title,
        )
        legend.set_alignment("left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    Image.open(buffer).convert("RGB").quantize(128).save(
        path, optimize=True
    )  # a quarter of the size


def draw_panel(
    axis: Axes, panel: dict[str, Any], x: str, y: str, styles: dict[str, tuple[str, str]]
) -> None:
    """One score of every arm along one axis."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    for arm in panel["arms"]:
        curve, (color, dashes) = arm["curve"], styles[arm["label"]]
        lines = {
            key: [point[key] if math.isfinite(point[key]) else math.nan for point in curve[y]]
            for key in ("median", "min", "max")
        }
        name = arm["label"].replace("$", r"\$")  # matplotlib reads a formula between two of them
        label = f"{name} ({len(arm['seeds'])} seed{'s' * (len(arm['seeds']) > 1)})"
        axis.fill_between(
            curve[x], lines["min"], lines["max"], color=color, alpha=0.18, linewidth=0
        )
        axis.plot(curve[x], lines["median"], dashes, color=color, linewidth=1.6, label=label)
    if y in panel["real_vs_real"]:
        axis.axhline(
            panel["real_vs_real"][y]["median"],
            color="black",
            linestyle=":",
            linewidth=1,
            label="real images",
        )
    if y == "frechet_distance":
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    if x == "images":
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set_xlabel({"images": "real images seen", "compute": "PFLOP, VAE included"}[x])
    axis.set_ylabel({"frechet_distance": "Fréchet distance", "recall": "recall"}[y])
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
