"""Read and validate the records of finished GAN runs."""

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
from vaegan.metrics.metric_table import MONITORS
from vaegan.reports.curves import Curve

FIELD_TYPES: dict[str, type | tuple[type, ...]] = {  # fields of run.json
    "label": str,
    "seed": int,
    "dataset": str,
    "feature_extractor": str,
    "monitor": str,
    "num_images": int,
    "real_vs_real": dict,
    "stage1_compute": (int, float),
    "metrics": dict,
    "config": dict,
}
AXES = ("val/images", "val/generator_updates", "val/compute")  # columns of metrics.csv


@dataclass(frozen=True)
class Run:
    """A finished GAN run."""

    folder: Path  # folder of the stage
    label: str  # name of the arm
    seed: int
    dataset: str
    feature_extractor: str
    monitor: str  # distance that is compared, which selected the best checkpoint
    num_images: int  # images that each score is computed from
    real_vs_real: dict[str, float]  # real-data baseline, by metric
    stage1_compute: float  # PFLOP spent on training the VAE; 0 for a cold start
    metrics: dict[str, float]  # final metrics, by tag
    config: dict[str, Any]  # plain config of the run
    curve: Curve


def find_runs(patterns: list[str]) -> list[Path]:
    """Return the GAN folders of finished runs, without duplicates.

    Args:
        patterns: Run folders, their `gan` subfolders, multirun folders, or glob patterns of these.

    Raises:
        ValueError: A pattern matches no folder, or a run is not finished.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        matches = [path]
        if not path.is_dir():
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        folders = [match for match in matches if match.is_dir()]
        expected = "folders of stage=gan or stage=pipeline runs, or glob patterns that match some"
        require(bool(folders), "runs", expected, pattern)
        for folder in folders:
            jobs = [job for job in folder.iterdir() if job.name.isdigit()]
            jobs.sort(key=lambda job: int(job.name))
            for run_folder in jobs or [folder]:
                found[find_gan_folder(run_folder).resolve()] = None
    return list(found)


def find_gan_folder(folder: Path) -> Path:
    """Return the folder that contains run.json, which is written when a run has finished.

    Raises:
        ValueError: The run is not finished, or the folder contains no GAN run.
    """
    for candidate in (folder, folder / "gan"):
        if (candidate / "run.json").is_file():
            return candidate
    if (folder / "gan").is_dir() or (folder / "metrics.csv").is_file():
        raise ValueError(
            f"runs: {folder} is not finished: it has no run.json; wait until it is, or omit it"
        )
    raise ValueError(
        f"runs: {folder} contains no GAN run; give the folder of a stage=gan or stage=pipeline run"
    )


def read_run(folder: Path) -> Run:
    """Read a run from its GAN folder.

    Raises:
        ValueError: A file is missing or damaged, or the label is empty.
    """
    path = folder / "run.json"
    try:
        fields = check_fields(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    if not fields["label"]:
        raise ValueError(
            f"runs: {folder} has no label; train with one label per arm, such as label=cold and "
            "label=warm"
        )
    curve = read_curve(folder / "metrics.csv", fields["stage1_compute"], fields["monitor"])
    return Run(folder=folder, curve=curve, **fields)


def check_fields(record: dict[str, Any]) -> dict[str, Any]:
    """Validate the known fields of run.json and return them, with all scores as floats.

    Raises:
        ValueError: A field has the wrong type or content.
        KeyError: A field is missing.
    """
    record = {"monitor": "frechet_distance"} | record  # missing in records of older versions
    fields = {key: record[key] for key in FIELD_TYPES}
    for key, kind in FIELD_TYPES.items():
        require(isinstance(fields[key], kind), key, str(kind), fields[key])
    for key in ("real_vs_real", "metrics"):
        fields[key] = {tag: float(value) for tag, value in fields[key].items()}
    names = [fields[key] for key in ("label", "dataset", "feature_extractor")]
    for name in (*names, *fields["real_vs_real"], *flatten(fields["config"])):
        expected = "a single line of printable characters"
        require(name.isprintable(), "every name", expected, name)
    real_vs_real = fields["real_vs_real"]
    monitor = fields["monitor"]
    require(monitor in MONITORS, "monitor", " or ".join(MONITORS), monitor)
    expected = f"scores that include {monitor}"
    require(monitor in real_vs_real, "real_vs_real", expected, real_vs_real)
    return fields


def read_curve(path: Path, stage1_compute: float, monitor: str = "frechet_distance") -> Curve:
    """Read the validations of a run, in order.

    A distance that is not finite becomes infinite, with recall 0.

    Args:
        path: Path of metrics.csv.
        stage1_compute: PFLOP spent on training the VAE, added to those of the GAN.
        monitor: Metric of the distances.

    Raises:
        ValueError: The file is missing or damaged, or does not contain a validation before training
            and at least one later validation.
    """
    names = (*AXES, f"val/{monitor}", "val/recall")  # in the order of Curve
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if row[f"val/{monitor}"]]
        columns = []
        for name in names:
            columns.append([float(row[name]) for row in rows])
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    images, updates, compute, distance, recall = columns
    recall = [r if math.isfinite(d) else 0.0 for d, r in zip(distance, recall, strict=True)]
    distance = [d if math.isfinite(d) else math.inf for d in distance]
    has_start = len(rows) >= 2 and images[0] == 0 and updates[0] == 0
    if not has_start or not 0 < distance[0] < math.inf:
        raise ValueError(
            f"runs: {path} must contain a validation at 0 images with a positive distance, and at "
            "least one later validation"
        )
    is_rising = all(a < b for axis in (images, compute) for a, b in itertools.pairwise(axis))
    is_rising = is_rising and all(a <= b for a, b in itertools.pairwise(updates))
    if not is_rising or not all(map(math.isfinite, (*images, *updates, *compute, *recall))):
        raise ValueError(
            f"runs: {path} is damaged: {', '.join(AXES)} must increase, and they and "
            "val/recall must be finite"
        )
    return Curve(images, updates, [stage1_compute + value for value in compute], distance, recall)
