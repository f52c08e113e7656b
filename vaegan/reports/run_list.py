"""List the training runs below a folder."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from vaegan.metrics.metric_table import MONITORS
from vaegan.reports.tables import format_number
from vaegan.runtime.atomic_files import read_json

COLUMNS = ("run", "started", "stage", "dataset", "status", "metrics")
# the first of these metrics that a result contains is shown
KEY_METRICS = {
    "vae": ("test/elbo", "test/iw_bound", "val/elbo", "val/iw_bound"),
    "gan": tuple(f"{split}/{name}" for name in MONITORS for split in ("test", "val")),
}
STAGES_OF = {"vae": ["vae"], "gan": ["gan"], "pipeline": ["vae", "gan"]}


class RunEntry(NamedTuple):
    """A training run."""

    folder: Path
    started: float  # seconds since the epoch
    stage: str
    dataset: str
    is_finished: bool
    has_checkpoint: bool
    metrics: dict[str, float]  # key metric of each finished stage, by tag

    def row(self, root: Path, is_running: bool) -> list[str]:
        """Return the cells of the table."""
        status = "stopped" if self.has_checkpoint else "failed"
        if self.is_finished:
            status = "finished"
        elif is_running:
            status = "running"
        date = datetime.fromtimestamp(self.started).isoformat(" ", "minutes")
        metrics = ", ".join(f"{tag} {format_number(value)}" for tag, value in self.metrics.items())
        name = str(self.folder.relative_to(root))
        return [name, date, self.stage, self.dataset, status, metrics]


def list_runs(root: Path) -> list[RunEntry]:
    """Return the training runs below a folder, oldest first. Damaged runs are left out."""
    entries = []
    for path in root.glob("**/config.json"):
        entry = read_run_entry(path)
        if entry is not None:
            entries.append(entry)
    return sorted(entries, key=lambda entry: entry.started)


def read_run_entry(path: Path) -> RunEntry | None:
    """Return the run with this config.json; None if it is damaged or from another program."""
    try:
        saved = read_json(path)
        stages = STAGES_OF[saved["stage"]]
        dataset = (saved["config"].get("dataset") or {}).get("name", "same as VAE")
        metrics: dict[str, float] = {}
        finished = []
        for stage in stages:
            result = path.parent / stage / "result.json"
            finished.append(result.is_file())
            if finished[-1]:
                metrics |= key_metric(stage, read_json(result)["metrics"])
        folders = [path.parent / stage / "checkpoints" for stage in stages]
        has_checkpoint = any(any(folder.glob("*.ckpt")) for folder in folders)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    started = path.stat().st_mtime
    stage = str(saved["stage"])
    return RunEntry(
        path.parent, started, stage, str(dataset), all(finished), has_checkpoint, metrics
    )


def key_metric(stage: str, metrics: dict[str, Any]) -> dict[str, float]:
    """Return the most important metric of a stage, by tag."""
    tags = [tag for tag in KEY_METRICS[stage] if tag in metrics]
    return {tag: float(metrics[tag]) for tag in tags[:1]}
