"""Picture grids of a VAE and of the generator that grew from its decoder: the same latents through either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.distributions import Distribution
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import make_grid

from vaegan.gan.generator import Generator
from vaegan.images import to_uint8
from vaegan.probability.distributions import mean_of
from vaegan.runtime.seeding import seeded
from vaegan.vae.model import VAE

COLUMNS = 8


def picture_grids(
    vae: VAE, latents: Distribution, generator: Generator, images: Tensor
) -> dict[str, Tensor]:
    """What a generator makes of latents from a VAE.

    Args:
        vae: Gives the latents of real images.
        latents: Gives those of samples, batch ().
        generator: Turns them into images; its own decoder, or what a GAN has made of it.
        images: Real images in [0, 1], (at least 2, C, H, W).

    Returns:
        Grids (C, height, width) in [0, 1]:
        samples: 64 images of latents drawn from torch's global generator.
        reconstructions: Rows of real images, each above a row of their reconstructions.
        interpolation: Each row goes from one real image's posterior mean to the next one's.
    """
    with torch.no_grad():
        drawn = latents.sample((COLUMNS * COLUMNS,))
        target = vae.likelihood.target(images)
        means = mean_of(vae.encode(target))
        rows = zip(target.split(COLUMNS), generator(means).split(COLUMNS), strict=True)
        weights = torch.linspace(0, 1, COLUMNS, device=means.device).view(1, -1, 1)
        start, end = means[0::2, None], means[1::2, None]
        count = min(len(start), len(end), COLUMNS)
        path = torch.lerp(start[:count], end[:count], weights).flatten(0, 1)
        return {
            "samples": grid(generator(drawn)),
            "reconstructions": grid(torch.cat([part for row in rows for part in row])),
            "interpolation": grid(generator(path)),
        }


def grid(images: Tensor) -> Tensor:
    """Images (N, C, H, W) side by side, eight in a row: (C, height, width)."""
    pixels: Tensor = make_grid(images.float().clamp(0, 1), nrow=COLUMNS, padding=1, pad_value=0.5)
    return pixels


class Pictures(pl.Callback):
    """Picture grids at every validation: to TensorBoard, and as PNG files named by the number of batches trained on.

    The latents are the same at every time and in both stages: the first picture of a warm-started GAN is the VAE's.

    Args:
        folder: Where the PNG files go: folder/samples/000550.png.
        images: Real images to reconstruct, in [0, 1], (N, C, H, W).
        seed: Of the latents.
    """

    def __init__(self, folder: Path, images: Tensor, seed: int) -> None:
        self.folder, self.images, self.seed = folder, images, seed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        images = self.images.to(pl_module.device, memory_format=torch.channels_last)
        generate = pl_module.generate if hasattr(pl_module, "generate") else pl_module.average
        with seeded(self.seed, "pictures"):
            grids = picture_grids(pl_module.vae, pl_module.latent_distribution(), generate, images)
        step = trainer.fit_loop.total_batch_idx + 1
        for name, grid in grids.items():
            path = self.folder / name / f"{step:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(to_uint8(grid).cpu()).save(path)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, grid, step)
