"""Inversion of a generator: find the latents of given images by gradient descent."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaegan.config import require
from vaegan.gan.generator import Generator
from vaegan.gan.warm_start import named_layers
from vaegan.vae.reconstruction import psnr

WEIGHT_LR_RATIO = 0.01  # learning rate of the weights, relative to that of the latents


class Inversion(NamedTuple):
    """Result of the inversion of B images."""

    z: Tensor  # latents, (B, latent_dim)
    images: Tensor  # generated images, (B, C, H, W)
    psnr_before: Tensor  # PSNR of the image of the encoder's latent, in dB, (B,)
    psnr_after: Tensor  # PSNR of `images`, in dB, (B,)


def invert_generator(
    generator: Generator, targets: Tensor, start: Tensor, num_steps: int, lr: float, num_layers: int
) -> Inversion:
    """Minimize the squared error of generated images over their latents, and optionally weights.

    The best latents of all steps are returned, so the PSNR never falls.

    Args:
        generator: The generator, not changed.
        targets: Images in [0, 1], (B, C, H, W).
        start: First latents, (B, latent_dim).
        num_steps: Adam steps, >= 0.
        lr: Learning rate of the latents.
        num_layers: Number of the generator's last layers to optimize, separately for each image.

    Source: Zhu et al. 2016, arXiv:1609.03552 (start at an encoder); Roich et al. 2021,
    arXiv:2106.05744 (weights).
    """
    layers = list(named_layers(generator.decoder.net).values())
    expected = f"from 0 to {len(layers)}, the number of layers of the generator"
    require(0 <= num_layers <= len(layers), "num_layers", expected, num_layers)
    require(num_steps >= 0, "num_steps", "at least 0", num_steps)
    require(lr > 0, "lr", "positive", lr)
    size = 1 if num_layers else len(targets)
    parts = [
        invert_batch(generator, target, first, num_steps, lr, num_layers)
        for target, first in zip(targets.split(size), start.split(size), strict=True)
    ]
    return Inversion(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.enable_grad()
def invert_batch(
    generator: Generator, target: Tensor, start: Tensor, num_steps: int, lr: float, num_layers: int
) -> Inversion:
    """Invert a batch of images with one copy of the generator."""
    generator = copy.deepcopy(generator).requires_grad_(False)
    z = start.detach().clone().requires_grad_()
    groups: list[dict[str, Any]] = [{"params": [z], "lr": lr}]
    layers = list(named_layers(generator.decoder.net).values())
    for layer in layers[len(layers) - num_layers :]:
        weights = list(layer.requires_grad_().parameters(recurse=False))
        groups.append({"params": weights, "lr": WEIGHT_LR_RATIO * lr})
    optimizer = torch.optim.Adam(groups)
    best = Inversion(
        start, target, torch.empty(0), torch.full((len(z),), -torch.inf, device=z.device)
    )
    for step in range(num_steps + 1):
        images = generator(z)
        best = select_better(best, z.detach(), images.detach(), psnr(images.detach(), target))
        if step < num_steps:
            optimizer.zero_grad()
            (images - target).square().mean((1, 2, 3)).sum().backward()
            optimizer.step()
    return best


def select_better(best: Inversion, z: Tensor, images: Tensor, ratio: Tensor) -> Inversion:
    """Return the better of two results for each image."""
    is_better = ratio > best.psnr_after
    return Inversion(
        z=torch.where(is_better.unsqueeze(1), z, best.z),
        images=torch.where(is_better.view(-1, 1, 1, 1), images, best.images),
        psnr_before=best.psnr_before if len(best.psnr_before) else ratio,
        psnr_after=torch.where(is_better, ratio, best.psnr_after),
    )
