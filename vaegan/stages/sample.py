"""Stage sample: generate images with a trained model. No data set is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaegan import __version__
from vaegan.config import require, to_plain
from vaegan.inference.load import load_model, select_device
from vaegan.inference.seeds import parse_seeds
from vaegan.inference.trained_model import TrainedModel
from vaegan.inference.traversal import latent_activity, traverse
from vaegan.reports.image_files import to_pixels, write_animation, write_png
from vaegan.reports.tables import print_lines
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.out_of_memory import explain_out_of_memory
from vaegan.runtime.paths import display_path
from vaegan.stages.inference_configs import DEFAULT_NUM_IMAGES, SampleRun
from vaegan.stages.run_folder import create_empty_folder
from vaegan.training.image_grids import make_image_grid

MAX_TRAVERSED = 10  # rows of a traversal: the most active latents
MEMORY_ADVICE = "a smaller num_images or num_steps, format=png, or device=cpu"
NUM_TRAVERSAL_STEPS = 9  # odd, so that the middle column is the mean


def sample(run: SampleRun, output_dir: Path) -> None:
    """Generate images, interpolations and latent traversals with a trained model.

    Raises:
        ValueError: The checkpoint is missing or damaged, a setting does not fit the model, or the
            folder already contains samples.
    """
    seeds = requested_seeds(run)
    ends = [] if run.interpolation is None else parse_seeds(run.interpolation, "interpolation")
    expected = "at least two seeds"
    require(run.interpolation is None or len(ends) >= 2, "interpolation", expected, ends)
    with explain_out_of_memory(MEMORY_ADVICE):
        model = load_model(run.ckpt, "ckpt", select_device(run.device))
        folder = create_empty_folder(output_dir / "sample")
        record = write_outputs(run, model, seeds, ends, folder)
    write_json(folder / "samples.json", record)
    names = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(names[:8]) + (f", ... ({len(names)} files)" if len(names) > 8 else "")
    lines = [f"  {model.checkpoint.stage} {display_path(model.checkpoint.path)}"]
    print_lines("", "Samples", *lines, f"  {display_path(folder)}: {shown}")


def write_outputs(
    run: SampleRun, model: TrainedModel, seeds: list[int], ends: list[int], folder: Path
) -> dict[str, Any]:
    """Write the images, the interpolation and the traversal; return the content of samples.json."""
    record = describe(run, model)
    if run.writes_samples:
        write_samples(model, seeds, run, folder)
        record["seeds"] = seeds
    if ends:
        write_interpolation(model, ends, run, folder)
        record["interpolation"] = ends
    if run.traversal:
        record["traversal"] = write_traversal(model, seeds[0], folder)
    return record


def requested_seeds(run: SampleRun) -> list[int]:
    """Return the seeds of the images."""
    if run.seeds is not None:
        return parse_seeds(run.seeds, "seeds")
    return list(range(run.seed, run.seed + (run.num_images or DEFAULT_NUM_IMAGES)))


def write_samples(model: TrainedModel, seeds: Sequence[int], run: SampleRun, folder: Path) -> None:
    """Write the images of random seeds in the format of the run."""
    images = model.sample_seeds(seeds, run.temperature, run.mean_or_draw == "draw")
    if run.format == "png":
        width = max(6, len(str(max(seeds))))
        for seed, image in zip(seeds, images, strict=True):
            write_png(image, folder / f"{seed:0{width}d}.png")
    elif run.format == "grid":
        num_columns = round(len(seeds) ** 0.5)
        write_png(make_image_grid(torch.stack(list(images)), num_columns), folder / "samples.png")
    else:
        np.savez_compressed(
            folder / "samples.npz",
            images=np.stack([to_pixels(image) for image in images]),
            latents=model.sample_latents(seeds, run.temperature).numpy(),
            seeds=np.array(seeds),
        )


def write_interpolation(
    model: TrainedModel, ends: Sequence[int], run: SampleRun, folder: Path
) -> None:
    """Write a strip with a row for each pair of seeds, and animations forward and backward."""
    rows: list[Tensor] = []
    for start, end in pairwise(ends):
        rows.append(model.interpolate(start, end, run.num_steps, run.temperature))
    write_png(make_image_grid(torch.cat(rows), run.num_steps), folder / "interpolation.png")
    frames = [rows[0][0], *(image for row in rows for image in row[1:])]
    frames += frames[-2:0:-1]
    for suffix in ("gif", "webp"):
        write_animation(frames, folder / f"interpolation.{suffix}")


def write_traversal(model: TrainedModel, seed: int, folder: Path) -> dict[str, Any]:
    """Write a grid with a row for each of the most active latents; return their activities."""
    activity = latent_activity(model)
    latents = activity.argsort(descending=True)[:MAX_TRAVERSED].tolist()
    images = traverse(model, seed, latents, NUM_TRAVERSAL_STEPS)
    write_png(make_image_grid(images, NUM_TRAVERSAL_STEPS), folder / "traversal.png")
    return {"seed": seed, "latents": latents, "activity": activity[latents].tolist()}


def describe(run: SampleRun, model: TrainedModel) -> dict[str, Any]:
    """Return the content of samples.json that is needed to reproduce the images."""
    path = model.checkpoint.path.resolve()  # outputs/latest may later point to another run
    versions = {"vaegan": __version__, "torch": version("torch")}
    return {
        "stage": model.checkpoint.stage,
        "checkpoint": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "image_shape": list(model.image_shape),
        "device": str(model.device),
        "settings": to_plain(run),
        "versions": versions,
    }
