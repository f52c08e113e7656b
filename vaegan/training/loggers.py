"""Loggers whose files can be truncated to the state of a checkpoint when a run is resumed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from vaegan.runtime.atomic_files import atomic_write
from vaegan.runtime.collectives import is_rank_zero

METRICS_FILE = "metrics.csv"
EVENT_FILES = "events.out.tfevents*"


class MetricsWriter(ExperimentWriter):
    """Lightning's CSV writer; it appends to an existing table and writes new headers atomically."""

    def _check_log_dir_exists(self) -> None:
        self.metrics_keys, _ = read_table(Path(self.log_dir))

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        _, rows = read_table(Path(self.log_dir))
        write_table(Path(self.log_dir), fieldnames, rows)


class MetricsLogger(CSVLogger):
    """CSV logger that writes `metrics.csv` directly into a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="")
        if is_rank_zero():
            self._experiment = MetricsWriter(str(folder))


class EventsLogger(TensorBoardLogger):
    """TensorBoard logger that opens one file per process start; Lightning opens one per loop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name=folder.name, version="", default_hp_metric=False)

    @rank_zero_only
    def log_config(self, config: Mapping[str, Any]) -> None:
        """Log a plain config as YAML text."""
        yaml = OmegaConf.to_yaml(dict(config))
        self.experiment.add_text("config", f"```yaml\n{yaml}\n```")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._experiment is not None:
            self._experiment.flush()

    @rank_zero_only
    def close(self) -> None:
        """Flush and close the event file."""
        if self._experiment is not None:
            self._experiment.close()


def read_table(folder: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the header and the rows of a folder's metrics.csv; both are empty without a file."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return [], []
    reader = csv.DictReader(path.read_text().splitlines())
    rows = list(reader)
    return list(reader.fieldnames or []), rows


def write_table(folder: Path, header: list[str], rows: list[dict[str, str]]) -> None:
    """Replace a folder's metrics.csv."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header)
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(folder / METRICS_FILE) as file:
        file.write(text.getvalue().encode())


def log_position(folder: Path) -> dict[str, Any]:
    """Return the current length of each log, for `truncate_logs`. Flush the loggers first."""
    event_sizes = {path.name: path.stat().st_size for path in sorted(folder.glob(EVENT_FILES))}
    return {"rows": len(read_table(folder)[1]), "events": event_sizes}


def truncate_logs(folder: Path, position: dict[str, Any]) -> None:
    """Remove everything logged after a position returned by `log_position`."""
    header, rows = read_table(folder)
    if len(rows) > position["rows"]:
        write_table(folder, header, rows[: position["rows"]])
    event_sizes = position["events"]
    for path in folder.glob(EVENT_FILES):
        if path.name not in event_sizes:
            path.unlink()
        elif path.stat().st_size > event_sizes[path.name]:
            os.truncate(path, event_sizes[path.name])
