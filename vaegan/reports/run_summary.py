"""Print summaries of training runs and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vaegan.reports.tables import print_lines, text_table
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import display_path, shell_command
from vaegan.training.stage_result import StageResult


def print_summary(
    title: str,
    results: list[StageResult],
    output_dir: Path,
    next_commands: list[str],
    plugins: Sequence[str],
) -> None:
    """Print the folder, checkpoints, images and metrics of a run, and suggested next commands.

    Args:
        title: First line.
        results: Results of the stages.
        output_dir: Run folder.
        next_commands: Commands that use the trained models.
        plugins: Modules that these commands have to import.
    """
    if not is_rank_zero():
        return
    rows = [("run folder", display_path(output_dir))]
    for result in results:
        stage = result.folder.name
        rows.append((f"{stage} checkpoint", display_path(result.checkpoint)))
        rows.append((f"{stage} images", display_path(result.folder / "images")))
        for tag, value in result.metrics.items():
            text = f"{value:.3f}"
            if tag in result.real_vs_real:
                text += f"  (real images: {result.real_vs_real[tag]:.3f})"
            rows.append((f"{stage} {tag}", text))
    width = max(len(label) for label, _ in rows)
    lines = [f"  {label:<{width}}  {value}" for label, value in rows]
    commands = [f"tensorboard --logdir {display_path(output_dir)}", *next_commands]
    next_lines = [f"  {shell_command(command, plugins)}" for command in commands]
    print_lines("", title, *lines, "", "next commands", *next_lines)


def print_metrics(metrics: dict[str, float], report: dict[str, Any], folder: Path) -> None:
    """Print the metrics of an evaluation as a table, with the model, data and settings."""
    num_images = report["num_images"]
    is_part = num_images < report["num_available"]
    number = f"{num_images} of {report['num_available']}" if is_part else f"{num_images}"
    images = f"{number} {report['split']} images of {report['dataset']}"
    details = []
    if report["stage"] == "vae":
        details += [f"{images}, importance samples per image: {report['num_samples']}"]
        settings = f"likelihood={report['likelihood']}, target_seed={report['target_seed']}"
        details += [f"{settings}; KL: {report['kl']}"]
        if is_part and not report["evaluation"]["full"]:
            details += ["a quick estimate; full=true scores all images with 1,000 samples each"]
    names = ["metric", "value"]
    rows = [[tag, f"{value:.4f}"] for tag, value in metrics.items()]
    if "real_vs_real" in report:
        extractor = report["feature_extractor"]
        num_draws = report["evaluation"]["num_draws"]
        line = f"{num_images} generated images, {images}; feature_extractor={extractor}"
        details.append(f"{line}; mean of {num_draws} draw{'s' * (num_draws > 1)} of latents")
        for key, name in (("standard_errors", "standard error"), ("real_vs_real", "real images")):
            names.append(name)
            for row in rows:
                value = report[key].get(row[0])
                row.append("" if value is None else f"{value:.4f}")
    checkpoint = display_path(Path(report["checkpoint"]))
    print_lines(
        "",
        f"{checkpoint}, epoch {report['epoch']}",
        *details,
        "",
        *text_table(names, rows, right_aligned=names[1:]),
        "",
        f"saved to {display_path(folder / 'evaluation.json')}",
    )
