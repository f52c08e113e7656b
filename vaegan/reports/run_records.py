"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import csv
import glob
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from vaegan.config import flatten, require
from vaegan.reports.comparison import Curve, Run

if TYPE_CHECKING:
    pass


FIELDS: dict[str, type | tuple[type, ...]] = {
    "label": str,
    "seed": int,
    "dataset": str,
    "feature_extractor": str,
    "num_images": int,
    "real_vs_real": dict,
    "stage1_compute": (int, float),
    "metrics": dict,
    "config": dict,
}  # of run.json, as in Run
COLUMNS = (
    "val/images",
    "val/generator_updates",
    "val/compute",
    "val/frechet_distance",
    "val/recall",
)  # as in Curve


def find_runs(places: list[str]) -> list[Path]:
    """GAN folders of finished runs, each once.

    Raises:
        ValueError: Nothing is there, or a run is not finished.
    """
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place).expanduser()
        hits = (
            [path]
            if path.is_dir()
            else [Path(hit) for hit in sorted(glob.glob(str(path), recursive=True))]
        )
        folders = [hit for hit in hits if hit.is_dir()]
        require(
            bool(folders),
            "runs",
            "folders of stage=gan or stage=pipeline runs, or globs of them",
            place,
        )
        for folder in folders:
            jobs = sorted(
                (job for job in folder.iterdir() if job.name.isdigit()),
                key=lambda job: int(job.name),
            )
            found |= dict.fromkeys(gan_folder(job).resolve() for job in jobs or [folder])
    return list(found)


def gan_folder(folder: Path) -> Path:
    """Where a run has its run.json, which is written last of all."""
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
    """A run from its GAN folder.

    Raises:
        ValueError: A file is missing or damaged, or the run has no label.
    """
    path = folder / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        fields = {key: found[key] for key in FIELDS}
        for key, kind in FIELDS.items():
            require(isinstance(fields[key], kind), key, str(kind), fields[key])
        for key in ("real_vs_real", "metrics"):
            fields[key] = {tag: float(value) for tag, value in fields[key].items()}
        about = [fields[key] for key in ("label", "dataset", "feature_extractor")]
        for name in (*about, *fields["real_vs_real"], *flatten(fields["config"])):
            require(
                name.isprintable(),
                "every name",
                "of characters that can be printed, in one line",
                name,
            )
        require(
            "frechet_distance" in fields["real_vs_real"],
            "real_vs_real",
            "that of frechet_distance at least",
            fields["real_vs_real"],
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    if not fields["label"]:
        raise ValueError(
            f"runs: {folder} has no label; train with label=cold, label=warm, ...: one for each arm"
        )
    return Run(
        folder=folder, curve=read_curve(folder / "metrics.csv", fields["stage1_compute"]), **fields
    )


def read_curve(path: Path, stage1_compute: float) -> Curve:
    """The validations of a run, in order. A generator whose distance is no number is infinitely far, with recall 0.

    Args:
        path: Lightning's metrics.csv.
        stage1_compute: PFLOP that the VAE cost, to add to those of the GAN.

    Raises:
        ValueError: The file is missing or damaged, has fewer than 2 validations, or none before the training.
    """
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file, strict=True) if row["val/frechet_distance"]]
        points = [[float(row[column]) for column in COLUMNS] for row in rows]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise ValueError(f"runs: {path} is damaged: {type(error).__name__}: {error}") from error
    points = [point if math.isfinite(point[3]) else [*point[:3], math.inf, 0.0] for point in points]
    if len(points) < 2 or points[0][:2] != [0, 0] or not 0 < points[0][3] < math.inf:
        raise ValueError(
            f"runs: {path} must hold a validation at 0 images, of a positive distance, and later ones"
        )
    images, updates, compute, distance, recall = zip(*points, strict=True)
    rises = [
        a[0] < b[0] and a[1] <= b[1] and a[2] < b[2]
        for a, b in zip(points, points[1:], strict=False)
    ]
    if not all(rises) or not all(map(math.isfinite, (*images, *updates, *compute, *recall))):
        raise ValueError(
            f"runs: {path} is damaged: {', '.join(COLUMNS[:3])} must rise, and be finite, as the recall"
        )
    return Curve(images, updates, [stage1_compute + value for value in compute], distance, recall)
