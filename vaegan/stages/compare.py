"""Stage compare: compare finished GAN runs with a baseline, as JSON, Markdown and a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vaegan.reports.comparison import Criteria, compare_runs
from vaegan.reports.comparison_report import draw, write_markdown
from vaegan.reports.run_records import find_runs, read_run
from vaegan.reports.tables import print_lines, replace_non_finite
from vaegan.runtime.paths import display_path
from vaegan.stages.tool_configs import CompareRun


def compare(run: CompareRun, output_dir: Path) -> None:
    """Compare finished GAN runs with a baseline, as JSON, Markdown and a figure.

    Infinity (a level is never reached) and nan (there are no levels) are null in comparison.json.

    Raises:
        ValueError: A run is missing, unfinished or damaged, or two runs are not comparable.
    """
    criteria = Criteria(run.baseline, run.max_update_ratio, run.max_rise)
    report = compare_runs([read_run(folder) for folder in find_runs(run.runs)], criteria)
    text = write_markdown(report)
    plain: dict[str, Any] = replace_non_finite(report)
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "comparison.json").write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")
    (output_dir / "comparison.md").write_text(text, encoding="utf-8")
    draw(report, output_dir / "comparison.png")
    files = [display_path(output_dir / f"comparison.{suffix}") for suffix in ("json", "md", "png")]
    print_lines("", text, f"saved to {', '.join(files)}")
