"""Stage encode: latents, reconstructions and scores of image files.

With a VAE, each image is encoded and scored. With a GAN, the generator is inverted.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import from_plain, require
from vaegan.data.crops import ImageDataset
from vaegan.data.dataset import ImageSource
from vaegan.gan.warm_start import named_layers
from vaegan.inference.load import load_model, select_device
from vaegan.inference.read_images import NamedImages, read_images
from vaegan.inference.trained_gan import TrainedGAN
from vaegan.inference.trained_vae import TrainedVAE
from vaegan.reports.tables import print_lines, text_table, write_csv
from vaegan.runtime.paths import display_path
from vaegan.stages.inference_configs import EncodeRun
from vaegan.stages.run_folder import create_empty_folder
from vaegan.training.image_grids import save_pairs
from vaegan.vae.reconstruction import psnr

log = logging.getLogger(__name__)
NUM_SHOWN = 32  # images in the grid of reconstructions
NUM_LISTED = 5  # rows of the printed table: images with the highest NLL or the lowest PSNR


def encode(run: EncodeRun, output_dir: Path) -> None:
    """Encode image files: latents, reconstructions, and scores that show outliers.

    Raises:
        ValueError: The checkpoint is missing or damaged, there are no images, or the folder already
            contains results.
    """
    model = load_model(run.ckpt, "ckpt", select_device(run.device))
    files = read_images(run.images, "images", model.checkpoint)
    folder = create_empty_folder(output_dir / "encode")
    if isinstance(model, TrainedVAE):
        names, columns = encode_with_vae(model, files, run, folder)
    else:
        names, columns = invert_gan(model, files, run, folder)
    values = np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)
    rows = [
        [file, *("" if np.isnan(value) else f"{value:.6g}" for value in row)]
        for file, row in zip(files.names, values, strict=True)
    ]
    write_csv(folder / "images.csv", ["file", *names], rows)
    print_rows(model.checkpoint, ["file", *names], rows, folder)


def encode_with_vae(
    model: TrainedVAE, files: NamedImages, run: EncodeRun, folder: Path
) -> tuple[list[str], list[Tensor]]:
    """Write latents and reconstructions; return names and values of the scores.

    The highest NLL comes first in the printed table, so `nll` is the first column.
    """
    scores = model.score(files.images, run.num_samples, run.seed, run.target_seed)
    nll = -scores.log_evidence.cpu()
    reconstructions = model.decode(scores.latent_mean)
    targets = model.images(files.images)
    np.savez_compressed(
        folder / "latents.npz",
        files=np.array(files.names),
        mean=scores.latent_mean.cpu().numpy(),
        stddev=scores.latent_variance.sqrt().cpu().numpy(),
    )
    write_pairs(targets, reconstructions, folder)
    bits = model.module.likelihood.bits_per_dim(-nll)
    columns = {
        "nll": nll,
        "rank": rank_in_test_split(model, nll, run),
        "elbo": (scores.log_likelihood - scores.kl).cpu(),
        "log_likelihood": scores.log_likelihood.cpu(),
        "kl": scores.kl.cpu(),
        "bits_per_dim": torch.full_like(nll, torch.nan) if bits is None else bits,
        "psnr": psnr(reconstructions, targets).cpu(),
    }
    return list(columns), list(columns.values())


def rank_in_test_split(model: TrainedVAE, nll: Tensor, run: EncodeRun) -> Tensor:
    """Return the fraction of test images that have a lower NLL than each image, in [0, 1].

    NaN if the data set of the model is not available.
    """
    unknown = torch.full_like(nll, torch.nan)
    if run.num_ranked == 0:
        return unknown
    dataset = model.checkpoint.vae["dataset"]
    try:
        source = from_plain(ImageSource.Config, dataset, "dataset").build()
        source.prepare()
        images = ImageDataset(source.split("test"), list(source.image_shape[1:])).images
    except (ValueError, OSError) as error:
        log.warning("no ranks, because the data set of the model is not available: %s", error)
        return unknown
    num = min(run.num_ranked, len(images))
    indices = torch.linspace(0, len(images) - 1, num).long()
    scores = model.score(images[indices], run.num_samples, run.seed, run.target_seed)
    ranked = (-scores.log_evidence.cpu()).sort().values
    return torch.searchsorted(ranked, nll.contiguous()).to(nll.dtype) / num


def invert_gan(
    model: TrainedGAN, files: NamedImages, run: EncodeRun, folder: Path
) -> tuple[list[str], list[Tensor]]:
    """Write latents and generated images; return names and values of the PSNR."""
    num_layers = len(named_layers(model.module.decoder.net))
    expected = f"at most {num_layers}, the number of layers of the generator"
    is_valid = run.inversion_layers <= num_layers
    require(is_valid, "inversion_layers", expected, run.inversion_layers)
    result = model.invert(files.images, run.inversion_steps, run.inversion_lr, run.inversion_layers)
    names = np.array(files.names)
    np.savez_compressed(folder / "latents.npz", files=names, mean=result.z.cpu().numpy())
    write_pairs(files.images, result.images, folder)
    before, after = result.psnr_before.cpu(), result.psnr_after.cpu()
    text = "mean PSNR %.2f dB at the encoder's latents, %.2f dB at step %d (number of images: %d)"
    print_lines("", text % (before.mean(), after.mean(), run.inversion_steps, len(names)))
    return ["psnr", "psnr_before"], [after, before]


def write_pairs(images: Tensor, reconstructions: Tensor, folder: Path) -> None:
    """Write rows of images, each followed by a row of their reconstructions."""
    path = folder / "reconstructions.png"
    save_pairs(images[:NUM_SHOWN].cpu(), reconstructions[:NUM_SHOWN].cpu(), path)


def print_rows(
    checkpoint: Checkpoint, names: Sequence[str], rows: Sequence[Sequence[Any]], folder: Path
) -> None:
    """Print the files and the rows of the images that fit the model worst."""
    sign = -1 if checkpoint.stage == "vae" else 1  # highest NLL, or lowest PSNR
    badness = [sign * float(row[1]) if row[1] else -math.inf for row in rows]  # NaN comes first
    order = sorted(range(len(rows)), key=badness.__getitem__)
    worst = [rows[i] for i in order[:NUM_LISTED]]
    print_lines(
        "",
        f"images: {len(rows)}, {checkpoint.stage} {display_path(checkpoint.path)}; worst first:",
        *text_table(names, worst, right_aligned=names[1:]),
        "",
        f"saved to {display_path(folder)}: images.csv, latents.npz, reconstructions.png",
    )
