"""Picture grids of a VAE and of the generator that grew from its decoder: the same latents through either."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution
from torchvision.utils import make_grid

from vaegan.distributions import mean_of
from vaegan.models import VAE, Generator

COLUMNS = 8


def picture_grids(vae: VAE, latents: Distribution, generator: Generator, images: Tensor) -> dict[str, Tensor]:
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
