"""Stage runs: list training runs."""

from __future__ import annotations

from pathlib import Path

from vaegan.reports.run_list import COLUMNS, list_runs
from vaegan.reports.tables import print_lines, text_table
from vaegan.stages.folder_access import is_locked
from vaegan.stages.inference_configs import RunsRun


def runs(run: RunsRun, output_dir: Path) -> None:
    """List the training runs below a folder: date, stage, data set, status, key metrics.

    Raises:
        ValueError: The folder does not exist, or contains no runs.
    """
    root = Path(run.folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"folder={run.folder} is not a folder; give the folder of your runs")
    entries = list_runs(root)
    if not entries:
        raise ValueError(
            f"folder={run.folder} contains no training runs. To start one: python train.py"
        )
    rows = [entry.row(root, is_locked(entry.folder)) for entry in entries]
    print_lines("", *text_table(COLUMNS, rows))
