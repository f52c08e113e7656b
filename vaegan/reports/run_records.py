"""Records of finished GAN runs, read from their folders and checked."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaegan.config import flatten, require
from vaegan.reports.curves import Curve

FIELD_TYPES: dict[str, type | tuple[type, ...]] = {  # of run.json
    "label": str,
    "seed": int,
    "dataset": str,
    "feature_extractor": str,
    "num_images": int,
    "real_vs_real": dict,
    "stage1_compute": (int, float),
    "metrics": dict,
    "config": dict,
}
COLUMNS = (  # of metrics.csv, in the order of Curve
    "val/images",
    "val/generator_updates",
    "val/compute",
    "val/frechet_distance",
    "val/recall",
)


@dataclass(frozen=True)
class Run:
    """A finished GAN run."""

    folder: Path
    label: str  # of its arm
    seed: int
    dataset: str
    feature_extractor: str
    num_images: int  # in a score
    real_vs_real: dict[str, float]  # scores of real images, by metric
    stage1_compute: float  # PFLOP that the VAE cost; 0 for a cold start
    metrics: dict[str, float]  # at the end, by tag
    config: dict[str, Any]
    curve: Curve


def find_runs(patterns: list[str]) -> list[Path]:
    """Return the GAN folders of finished runs, each once.

    Args:
        patterns: Run folders, their folders `gan`, multirun folders, or globs of any of these.

    Raises:
        ValueError: A pattern matches nothing, or a run is not finished.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path]
        if not path.is_dir():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        folders = [match for match in matches if match.is_dir()]
        expected = "folders of stage=gan or stage=pipeline runs, or globs of them"
        require(bool(folders), "runs", expected, pattern)
        for folder in folders:
            jobs = [job for job in folder.iterdir() if job.name.isdigit()]
            jobs.sort(key=lambda job: int(job.name))
            for run_folder in jobs or [folder]:
                found[find_gan_folder(run_folder).resolve()] = None
    return list(found)


def find_gan_folder(folder: Path) -> Path:
    """Return the folder with a run's run.json, which is written last of all."""
    for candidate in (folder, folder / "gan"):
        if (candidate / "run.json").is_file():
            return candidate
    if (folder / "gan").is_dir() or (folder / "metrics.csv").is_file():
        raise ValueError(
            f"runs: {folder} is not finished: it has no run.json; wait for it, or leave it out"
        )
    raise ValueError(
        f"runs: {folder} holds no GAN run; expected the folder of a stage=gan or stage=pipeline run"
    )


def read_run(folder: Path) -> Run:
    """Read a run from its GAN folder.

    Raises:
        ValueError: A file is missing or damaged, or the run has no label.
    """
    path = folder / "run.json"
    try:
        fields = check_fields(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    if not fields["label"]:
        raise ValueError(
            f"runs: {folder} has no label; train with label=cold, label=warm, ...: one for each arm"
        )
    curve = read_curve(folder / "metrics.csv", fields["stage1_compute"])
    return Run(folder=folder, curve=curve, **fields)


def check_fields(record: dict[str, Any]) -> dict[str, Any]:
    """Return the known fields of run.json, checked, with all scores as floats."""
    fields = {key: record[key] for key in FIELD_TYPES}
    for key, kind in FIELD_TYPES.items():
        require(isinstance(fields[key], kind), key, str(kind), fields[key])
    for key in ("real_vs_real", "metrics"):
        fields[key] = {tag: float(value) for tag, value in fields[key].items()}
    names = [fields[key] for key in ("label", "dataset", "feature_extractor")]
    for name in (*names, *fields["real_vs_real"], *flatten(fields["config"])):
        expected = "of characters that can be printed, in one line"
        require(name.isprintable(), "every name", expected, name)
    real_vs_real = fields["real_vs_real"]
    has_distance = "frechet_distance" in real_vs_real
    require(has_distance, "real_vs_real", "that of frechet_distance at least", real_vs_real)
    return fields


def read_curve(path: Path, stage1_compute: float) -> Curve:
    """Read the validations of a run, in order.

    A generator whose distance is not finite is infinitely far, with recall 0.

    Args:
        path: Lightning's metrics.csv.
        stage1_compute: PFLOP that the VAE cost, to add to those of the GAN.

    Raises:
        ValueError: The file is missing or damaged, has fewer than 2 validations, or none before the
            training.
    """
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if row["val/frechet_distance"]]
        columns = []
        for name in COLUMNS:
            columns.append([float(row[name]) for row in rows])
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    images, updates, compute, distance, recall = columns
    for i, value in enumerate(distance):
        if not math.isfinite(value):
            distance[i] = math.inf
            recall[i] = 0.0
    has_start = len(rows) >= 2 and images[0] == 0 and updates[0] == 0
    if not has_start or not 0 < distance[0] < math.inf:
        raise ValueError(
            f"runs: {path} must hold a validation at 0 images, of a positive distance, and later "
            "ones"
        )
    is_rising = all(a < b for axis in (images, compute) for a, b in itertools.pairwise(axis))
    is_rising = is_rising and all(a <= b for a, b in itertools.pairwise(updates))
    if not is_rising or not all(map(math.isfinite, (*images, *updates, *compute, *recall))):
        raise ValueError(
            f"runs: {path} is damaged: {', '.join(COLUMNS[:3])} must rise, and be finite, as the "
            "recall"
        )
    return Curve(images, updates, [stage1_compute + value for value in compute], distance, recall)
