"""Logs that can be taken back to a checkpoint: a run that goes on from there writes on as if nothing had happened."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

from vaegan.runtime.atomic_files import atomic_write
from vaegan.runtime.collectives import is_rank_zero

TABLE = "metrics.csv"
EVENTS = "events.out.tfevents*"


class MetricsWriter(ExperimentWriter):
    """Lightning's, but that it continues a table that is there, and changes its header in one step."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys = read_table(Path(self.log_dir))[0]

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        write_table(Path(self.log_dir), fieldnames, read_table(Path(self.log_dir))[1])


class MetricsLogger(CSVLogger):
    """`metrics.csv` of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        if is_rank_zero():
            self._experiment = MetricsWriter(str(folder))


class EventsLogger(TensorBoardLogger):
    """TensorBoard's curves of a folder: one file for each start of a run, where Lightning begins one for each loop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name=folder.name, version="", default_hp_metric=False)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self._experiment.flush()

    @rank_zero_only
    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._experiment is not None:
            self._experiment.close()


def read_table(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a folder's table; empty where there is none."""
    if not (folder / TABLE).is_file():
        return [], []
    reader = csv.DictReader((folder / TABLE).read_text().splitlines())
    rows = list(reader)
    return list(reader.fieldnames or []), rows


def write_table(folder: Path, header: list[str], rows: list[dict[str, str]]) -> None:
    """Put header and rows in the table's place."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header)
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(folder / TABLE) as file:
        file.write(text.getvalue().encode())


def log_position(folder: Path) -> dict[str, Any]:
    """How much has been written: what `truncate_logs` needs to go back here. All must be flushed."""
    events = {path.name: path.stat().st_size for path in sorted(folder.glob(EVENTS))}
    return {"rows": len(read_table(folder)[1]), "events": events}


def truncate_logs(folder: Path, there: dict[str, Any]) -> None:
    """Forget what was written after a mark."""
    header, rows = read_table(folder)
    if len(rows) > there["rows"]:
        write_table(folder, header, rows[: there["rows"]])
    for path in folder.glob(EVENTS):
        if path.name not in there["events"]:
            path.unlink()
        elif path.stat().st_size > there["events"][path.name]:
            os.truncate(path, there["events"][path.name])
