"""Image grids of a VAE or a GAN: samples, reconstructions and interpolations.

A GAN's generator gets the same latents as the VAE decoder that it was initialized from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.distributions import Distribution
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from vaegan.images import to_uint8
from vaegan.probability.distributions import mean_of
from vaegan.runtime.seeding import seeded

NUM_COLUMNS = 8


@torch.no_grad()
def make_image_grids(
    vae: Any, latents: Distribution, generate: Callable[[Tensor], Tensor], images: Tensor
) -> dict[str, Tensor]:
    """Generate grids of samples, reconstructions and interpolations.

    Args:
        vae: VAE that encodes the real images.
        latents: Distribution of the latents for the samples, batch shape ().
        generate: Map from latents (B, latent_dim) to images (B, C, H, W): the VAE's decoder or a
            GAN's generator.
        images: Real images in [0, 1], (N, C, H, W), N >= 2.

    Returns:
        Grids (C, height, width) in [0, 1]:
        samples: 64 images generated from latents drawn with torch's global random generator.
        reconstructions: Rows of real images, each followed by a row of their reconstructions.
        interpolation: Each row goes from the posterior mean of one real image to that of another.
    """
    z = latents.sample(torch.Size([NUM_COLUMNS * NUM_COLUMNS]))
    target = vae.likelihood.target(images)
    means = mean_of(vae.encode(target))
    path = interpolate(means)
    return {
        "samples": make_image_grid(generate(z)),
        "reconstructions": make_image_grid(interleave_rows(target, generate(means))),
        "interpolation": make_image_grid(generate(path)),
    }


def interpolate(means: Tensor) -> Tensor:
    """Interpolate linearly between latents 0 and 1, 2 and 3, ...: at most 8 lines of 8 latents."""
    num_lines = min(len(means) // 2, NUM_COLUMNS)
    start = means[0::2, None][:num_lines]
    end = means[1::2, None][:num_lines]
    weights = torch.linspace(0, 1, NUM_COLUMNS, device=means.device).view(1, -1, 1)
    return torch.lerp(start, end, weights).flatten(0, 1)


def make_image_grid(images: Tensor, num_columns: int = NUM_COLUMNS) -> Tensor:
    """Arrange images (N, C, H, W) in rows; return a grid (C, height, width) in [0, 1]."""
    return make_grid(images.float().clamp(0, 1), nrow=num_columns, padding=1, pad_value=0.5)


def interleave_rows(images: Tensor, partners: Tensor) -> Tensor:
    """Return rows of images, each followed by a row of their partners, both (N, C, H, W)."""
    rows: list[Tensor] = []
    for row, partner_row in zip(
        images.split(NUM_COLUMNS), partners.split(NUM_COLUMNS), strict=True
    ):
        missing = NUM_COLUMNS - len(row)  # the last row may be incomplete
        rows += [
            torch.cat([part, part.new_ones(missing, *part.shape[1:])])
            for part in (row, partner_row)
        ]
    return torch.cat(rows)


def save_pairs(images: Tensor, partners: Tensor, path: Path) -> None:
    """Save rows of images, each above a row of their partners, both (N, C, H, W) in [0, 1]."""
    to_pil_image(to_uint8(make_image_grid(interleave_rows(images, partners)))).save(path)


class ImageGridLogger(pl.Callback):
    """Log image grids at every validation, to TensorBoard and as PNG files named by the batch.

    The latents are the same at every validation and in both stages, so that the first grids of a
    warm-started GAN equal those of its VAE. The module must provide `vae`, `latent_distribution()`
    and `generate(z)`.

    Args:
        folder: Parent folder of the PNG files, such as folder/samples/000550.png.
        images: Real images to reconstruct, in [0, 1], (N, C, H, W).
        seed: Random seed of the latents.
    """

    def __init__(self, folder: Path, images: Tensor, seed: int) -> None:
        self.folder = folder
        self.images = images
        self.seed = seed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        images = self.images.to(pl_module.device, memory_format=torch.channels_last)
        with seeded(self.seed, "pictures"):  # another key would change the latents
            grids = make_image_grids(
                pl_module.vae, pl_module.latent_distribution(), pl_module.generate, images
            )
        step = trainer.fit_loop.total_batch_idx + 1
        for name, grid in grids.items():
            path = self.folder / name / f"{step:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(to_uint8(grid).cpu()).save(path)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, grid, step)
