"""What the user reads at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import display_path, shell_command
from vaegan.training.stage_result import StageResult


def print_summary(
    title: str, results: list[StageResult], output_dir: Path, next_commands: list[str]
) -> None:
    """Where the run is, its checkpoints, pictures and metrics, and what to type next."""
    if not is_rank_zero():
        return
    rows = [("run folder", display_path(output_dir))]
    for result in results:
        stage = result.folder.name
        rows.append((f"{stage} checkpoint", display_path(result.checkpoint)))
        rows.append((f"{stage} images", display_path(result.folder / "images")))
        for tag, value in sorted(result.metrics.items()):
            floor = f"  (real images: {result.floor[tag]:.3f})" if tag in result.floor else ""
            rows.append((f"{stage} {tag}", f"{value:.3f}{floor}"))
    width = max(len(label) for label, _ in rows)
    commands = [
        shell_command(command)
        for command in (f"tensorboard --logdir {display_path(output_dir)}", *next_commands)
    ]
    lines = [f"  {label:<{width}}  {value}" for label, value in rows]
    console = Console(
        soft_wrap=True, highlight=False, markup=False
    )  # a path in one piece can be copied
    console.print(
        "", title, *lines, "", "next", *(f"  {command}" for command in commands), sep="\n"
    )


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
        about += [
            f"likelihood={report['likelihood']}, target_seed={report['target_seed']}; KL: {report['kl']}"
        ]
    for tag, value in figures.items():
        floor = report.get("floor", {})
        table.add_row(tag, f"{value:.4f}", *([f"{floor[tag]:.4f}"] if tag in floor else []))
    console.print(
        "",
        f"{display_path(Path(report['checkpoint']))}, epoch {report['epoch']}",
        *about,
        "",
        sep="\n",
    )
    console.print(table)
    console.print("", f"also in {display_path(folder / 'evaluation.json')}", sep="\n")
