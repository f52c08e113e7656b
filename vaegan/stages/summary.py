"""What the user reads at the end of a run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vaegan.processes import is_first
from vaegan.stages.runs import StageResult


def shown(path: Path) -> str:
    """Path as a shell takes it, relative to the current folder if it lies in it."""
    path, here = path.resolve(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def to_type(command: str) -> str:
    """A command as the user types it: what sets UV is `uv run`, whose programs are on no other path."""
    return f"uv run {command}" if "UV" in os.environ else command


def print_summary(title: str, results: list[StageResult], output_dir: Path, next_commands: list[str]) -> None:
    """Where the run is, its checkpoints, pictures and metrics, and what to type next."""
    if not is_first():
        return
    rows = [("run folder", shown(output_dir))]
    for result in results:
        stage = result.folder.name
        rows.append((f"{stage} checkpoint", shown(result.checkpoint)))
        rows.append((f"{stage} pictures", shown(result.folder / "pictures")))
        for tag, value in sorted(result.metrics.items()):
            floor = f"  (real images: {result.floor[tag]:.3f})" if tag in result.floor else ""
            rows.append((f"{stage} {tag}", f"{value:.3f}{floor}"))
    width = max(len(label) for label, _ in rows)
    commands = [to_type(command) for command in (f"tensorboard --logdir {shown(output_dir)}", *next_commands)]
    lines = [f"  {label:<{width}}  {value}" for label, value in rows]
    console = Console(soft_wrap=True, highlight=False, markup=False)  # a path in one piece can be copied
    console.print("", title, *lines, "", "next", *(f"  {command}" for command in commands), sep="\n")


def print_figures(figures: dict[str, float], report: dict[str, Any], folder: Path) -> None:
    """Table of an evaluation, with what it was made from."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("figure")
    table.add_column("value", justify="right")
    images = f"{report['num_images']} {report['split']} images of {report['dataset']}"
    if report["stage"] == "gan":
        table.add_column("real images", justify="right")
        about = [f"as many generated images as {images}; features={report['features']}"]
    else:
        about = [f"{images}, {report['num_samples']} samples each"]
        about += [f"likelihood={report['likelihood']}, target_seed={report['target_seed']}; KL: {report['kl']}"]
    for tag, value in figures.items():
        floor = report.get("floor", {})
        table.add_row(tag, f"{value:.4f}", *([f"{floor[tag]:.4f}"] if tag in floor else []))
    console.print("", f"{shown(Path(report['checkpoint']))}, epoch {report['epoch']}", *about, "", sep="\n")
    console.print(table)
    console.print("", f"also in {shown(folder / 'evaluation.json')}", sep="\n")
