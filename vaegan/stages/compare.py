"""Stage compare: finished GAN runs, warm starts against cold ones, as JSON, as Markdown and as a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vaegan.reports.comparison import compare_runs
from vaegan.runtime.paths import display_path
from vaegan.stages.tool_configs import CompareRun

if TYPE_CHECKING:
    pass
from vaegan.reports.comparison_report import draw, finite, markdown
from vaegan.reports.run_records import find_runs, read_run


def compare(run: CompareRun, output_dir: Path) -> None:
    """Compare finished GAN runs."""
    compare_folders(run.runs, run.baseline, output_dir)


def compare_folders(runs: list[str], baseline: str, output_dir: Path) -> dict[str, Any]:
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
    files = [display_path(output_dir / f"comparison.{kind}") for kind in ("json", "md", "png")]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print("", text, f"also in {', '.join(files)}", sep="\n")
    return plain
