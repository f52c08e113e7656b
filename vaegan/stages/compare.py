"""Stage compare: finished GAN runs, warm starts against cold ones, as JSON, as Markdown and as a figure."""

from __future__ import annotations

import csv
import glob
import json
import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vaegan.comparison import AIMS, Curve, Run, compare_runs
from vaegan.config import flatten, require
from vaegan.stages.summary import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIELDS: dict[str, type | tuple[type, ...]] = {
    "label": str,
    "seed": int,
    "dataset": str,
    "features": str,
    "num_images": int,
    "floor": dict,
    "stage1_compute": (int, float),
    "metrics": dict,
    "config": dict,
}  # of run.json, as in Run
COLUMNS = ("val/images", "val/generator_updates", "val/compute", "val/frechet_distance", "val/recall")  # as in Curve
BASELINE_COLOR = "#3b3b3b"
COLORS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
)  # told apart by the colour-blind: Okabe & Ito
DASHES = ("-", "--", "-.")


def compare(runs: list[str], baseline: str, output_dir: Path) -> dict[str, Any]:
    """Write comparison.json, comparison.md and comparison.png, and print the Markdown.

    Args:
        runs: Run folders, their folders `gan`, multirun folders, or globs of any of these.
        baseline: Label of the runs that all others are held against.
        output_dir: Where to write; made if missing.

    Returns:
        What comparison.json holds: infinities (a level never reached) and nan (no level) as None.

    Raises:
        ValueError: A run is missing, unfinished or damaged, or runs cannot be compared.
    """
    report = compare_runs([read_run(folder) for folder in find_runs(runs)], baseline)
    output_dir.mkdir(parents=True, exist_ok=True)
    text = markdown(report)
    plain: dict[str, Any] = finite(report)
    (output_dir / "comparison.json").write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")
    (output_dir / "comparison.md").write_text(text, encoding="utf-8")
    draw(report, output_dir / "comparison.png")
    files = [shown(output_dir / f"comparison.{kind}") for kind in ("json", "md", "png")]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("", text, f"also in {', '.join(files)}", sep="\n")
    return plain


def find_runs(places: list[str]) -> list[Path]:
    """GAN folders of finished runs, each once.

    Raises:
        ValueError: Nothing is there, or a run is not finished.
    """
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place).expanduser()
        hits = [path] if path.is_dir() else [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True))]
        folders = [hit for hit in hits if hit.is_dir()]
        require(bool(folders), "runs", "folders of stage=gan or stage=pipeline runs, or globs of them", place)
        for folder in folders:
            jobs = sorted((job for job in folder.iterdir() if job.name.isdigit()), key=lambda job: int(job.name))
            found |= dict.fromkeys(gan_folder(job).resolve() for job in jobs or [folder])
    return list(found)


def gan_folder(folder: Path) -> Path:
    """Where a run has its run.json, which is written last of all."""
    for candidate in (folder, folder / "gan"):
        if (candidate / "run.json").is_file():
            return candidate
    if (folder / "gan").is_dir() or (folder / "metrics.csv").is_file():
        raise ValueError(f"runs: {folder} is not finished: it has no run.json; wait for it, or leave it out")
    raise ValueError(f"runs: {folder} holds no GAN run; expected the folder of a stage=gan or stage=pipeline run")


def read_run(folder: Path) -> Run:
    """A run from its GAN folder.

    Raises:
        ValueError: A file is missing or damaged, or the run has no label.
    """
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fields = {key: found[key] for key in FIELDS}
        for key, kind in FIELDS.items():
            require(isinstance(fields[key], kind), key, str(kind), fields[key])
        for key in ("floor", "metrics"):
            fields[key] = {tag: float(value) for tag, value in fields[key].items()}
        about = [fields[key] for key in ("label", "dataset", "features")]
        for name in (*about, *fields["floor"], *flatten(fields["config"])):
            require(name.isprintable(), "every name", "of characters that can be printed, in one line", name)
        require("frechet_distance" in fields["floor"], "floor", "that of frechet_distance at least", fields["floor"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    if not fields["label"]:
        raise ValueError(f"runs: {folder} has no label; train with label=cold, label=warm, ...: one for each arm")
    return Run(folder=folder, curve=read_curve(folder / "metrics.csv", fields["stage1_compute"]), **fields)


def read_curve(path: Path, stage1_compute: float) -> Curve:
    """The validations of a run, in order. A generator whose distance is no number is infinitely far, with recall 0.

    Args:
        path: Lightning's metrics.csv.
        stage1_compute: PFLOP that the VAE cost, to add to those of the GAN.

    Raises:
        ValueError: The file is missing or damaged, has fewer than 2 validations, or none before the training.
    """
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if row["val/frechet_distance"]]
        points = [[float(row[column]) for column in COLUMNS] for row in rows]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    points = [point if math.isfinite(point[3]) else [*point[:3], math.inf, 0.0] for point in points]
    if len(points) < 2 or points[0][:2] != [0, 0] or not 0 < points[0][3] < math.inf:
        raise ValueError(f"runs: {path} must hold a validation at 0 images, of a positive distance, and later ones")
    images, updates, compute, distance, recall = zip(*points, strict=True)
    rises = [a[0] < b[0] and a[1] <= b[1] and a[2] < b[2] for a, b in zip(points, points[1:], strict=False)]
    if not all(rises) or not all(map(math.isfinite, (*images, *updates, *compute, *recall))):
        raise ValueError(f"runs: {path} is damaged: {', '.join(COLUMNS[:3])} must rise, and be finite, as the recall")
    return Curve(images, updates, [stage1_compute + value for value in compute], distance, recall)


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
    floor = ", ".join(f"{name} {number(value['median'])}" for name, value in panel["floor"].items())
    ends = {arm["label"]: f"{arm['end']['images']:.0f}" for arm in panel["arms"]}
    lines = [f"## {panel['dataset']}, {panel['num_images']} images, features {panel['features']}", ""]
    lines += [f"Floor (real images against real ones): {floor}", ""]
    lines += [cells(names), cells(["---", *["---:"] * 8, "---", "---"])]
    lines += [cells(row(arm)) for arm in panel["arms"]] + [""]
    if len(set(ends.values())) > 1:
        budgets = ", ".join(f"{label} {images}" for label, images in ends.items())
        lines += [f"Images seen: {budgets}. Aim c is judged at the last point shared with {baseline}.", ""]
    for key, values in panel["settings"].items():
        lines.append(f"- `{key}`: " + "; ".join(f"{label} {' or '.join(found)}" for label, found in values.items()))
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
        f"{ratio(of['median'])} / {ratio(of['worst'])}" for of in (result["update_ratio"], result["compute_ratio"])
    ]
    aims = " ".join(letter if is_met else "–" for letter, is_met in result["aims"].items())
    by_seed = " ".join(f"{sum(pair['aims'][letter] for pair in pairs)}/{len(pairs)}" for letter in AIMS)
    return [*found, *ratios, rises, aims, by_seed if pairs else "no common seed"]


def cells(values: list[str]) -> str:
    """Row of a Markdown table."""
    return f"| {' | '.join(value.replace('|', chr(92) + '|') for value in values)} |"


def number(value: float) -> str:
    """3 digits that count, without an exponent where that is readable."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def ratio(value: float) -> str:
    """A ratio to the baseline; infinite where a level is never reached, nan where there is none."""
    return "not reached" if math.isinf(value) else "no level" if math.isnan(value) else number(value)


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
    others = [arm["label"] for panel in panels for arm in panel["arms"] if arm["label"] != report["baseline"]]
    styles = {label: (COLORS[i % 6], DASHES[i // 6 % 3]) for i, label in enumerate(dict.fromkeys(others))}
    styles[report["baseline"]] = (BASELINE_COLOR, "-")
    figure = Figure(figsize=(11, 3.5 * len(panels)), layout="constrained")
    views = (("images", "frechet_distance"), ("compute", "frechet_distance"), ("images", "recall"))
    for panel, part in zip(panels, figure.subfigures(len(panels), 1, squeeze=False)[:, 0], strict=True):
        axes = part.subplots(1, 3)
        for (x, y), axis in zip(views, axes, strict=True):
            draw_panel(axis, panel, x, y, styles)
        title = f"{panel['dataset']}, features {panel['features']}".replace("$", r"\$")
        legend = part.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=5, frameon=False, title=title
        )
        legend.set_alignment("left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    Image.open(buffer).convert("RGB").quantize(128).save(path, optimize=True)  # a quarter of the size


def draw_panel(axis: Axes, panel: dict[str, Any], x: str, y: str, styles: dict[str, tuple[str, str]]) -> None:
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
        axis.fill_between(curve[x], lines["min"], lines["max"], color=color, alpha=0.18, linewidth=0)
        axis.plot(curve[x], lines["median"], dashes, color=color, linewidth=1.6, label=label)
    if y in panel["floor"]:
        axis.axhline(panel["floor"][y]["median"], color="black", linestyle=":", linewidth=1, label="real images")
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
