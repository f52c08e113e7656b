"""Printed summaries of trainings and evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaegan.reports.tables import print_lines, text_table
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import display_path, shell_command
from vaegan.training.stage_result import StageResult


def print_summary(
    title: str, results: list[StageResult], output_dir: Path, next_commands: list[str]
) -> None:
    """Print a run's folder, checkpoints, images and metrics, and the commands to continue with."""
    if not is_rank_zero():
        return
    rows = [("run folder", display_path(output_dir))]
    for result in results:
        stage = result.folder.name
        rows.append((f"{stage} checkpoint", display_path(result.checkpoint)))
        rows.append((f"{stage} images", display_path(result.folder / "images")))
        for tag, value in sorted(result.metrics.items()):
            text = f"{value:.3f}"
            if tag in result.real_vs_real:
                text += f"  (real images: {result.real_vs_real[tag]:.3f})"
            rows.append((f"{stage} {tag}", text))
    width = max(len(label) for label, _ in rows)
    lines = [f"  {label:<{width}}  {value}" for label, value in rows]
    commands = [f"tensorboard --logdir {display_path(output_dir)}", *next_commands]
    print_lines("", title, *lines, "", "next", *(f"  {shell_command(c)}" for c in commands))


def print_figures(figures: dict[str, float], report: dict[str, Any], folder: Path) -> None:
    """Print the table of an evaluation, and what it was made from."""
    images = f"{report['num_images']} {report['split']} images of {report['dataset']}"
    if report["stage"] == "gan":
        extractor = report["feature_extractor"]
        about = [f"as many generated images as {images}; feature_extractor={extractor}"]
    else:
        settings = f"likelihood={report['likelihood']}, target_seed={report['target_seed']}"
        about = [f"{images}, {report['num_samples']} samples each"]
        about += [f"{settings}; KL: {report['kl']}"]
    names = ["figure", "value"]
    rows = [[tag, f"{value:.4f}"] for tag, value in figures.items()]
    if report["stage"] == "gan":
        names.append("real images")
        for row in rows:
            real = report["real_vs_real"].get(row[0])
            row.append("" if real is None else f"{real:.4f}")
    checkpoint = display_path(Path(report["checkpoint"]))
    print_lines(
        "",
        f"{checkpoint}, epoch {report['epoch']}",
        *about,
        "",
        *text_table(names, rows, right_aligned=names[1:]),
        "",
        f"also in {display_path(folder / 'evaluation.json')}",
    )
