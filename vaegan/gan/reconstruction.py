"""Reconstruction losses of a generator, with the latents of real images from the VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vaegan.gan.generator import Generator
from vaegan.runtime.seeding import drawing_noise
from vaegan.vae.model import VAE, in_full_precision, to_full_precision

HiddenUnits = Callable[[Tensor], Sequence[Tensor]]  # images to one tensor (B, ...) per layer


class ReconstructionWeights(NamedTuple):
    """Weights of the reconstruction losses; None: the loss is not computed."""

    pixels: Tensor | float | None  # of `pixel_loss`
    features: Tensor | float | None  # of `feature_loss`


def reconstruction_loss(
    vae: VAE,
    generator: Generator,
    hidden_units: HiddenUnits,
    images: Tensor,
    weights: ReconstructionWeights,
) -> Tensor:
    """Return the weighted sum of the reconstruction losses of images.

    Args:
        vae: VAE whose encoder provides the latents.
        generator: Generator that reconstructs the images.
        hidden_units: Maps images to the hidden units of the discriminator.
        images: Real images in [0, 1], (B, C, H, W).
        weights: Weights of the losses.
    """
    total = images.new_zeros(())
    if all(weight is None for weight in weights):
        return total
    with torch.no_grad():
        target = vae.likelihood.target(images)
        posterior = vae.encode(target)
        with in_full_precision(), drawing_noise():
            z = posterior.rsample()  # `sample` waits for the GPU; the numbers are the same
    params = to_full_precision(generator.decoder(z))
    if weights.pixels is not None:
        total = total + weights.pixels * pixel_loss(generator, params, target)
    if weights.features is not None:
        reconstructed = generator.likelihood.image(params, generator.saturation_logit)
        total = total + weights.features * feature_loss(hidden_units, reconstructed, images)
    return total


@in_full_precision()
def pixel_loss(generator: Generator, params: Tensor, target: Tensor) -> Tensor:
    """Return the mean of -log p(x|z) / (C H W) over the batch, in nats per dimension.

    p(x|z) is the generator's likelihood: this is the reconstruction term of the VAE's objective.

    Args:
        generator: Generator that provides p(x|z).
        params: Parameters of p(x|z), one row for each image.
        target: Images x that are scored, (B, C, H, W).
    """
    return -generator.likelihood(params).log_prob(target).mean() / target[0].numel()


def feature_loss(hidden_units: HiddenUnits, reconstructed: Tensor, images: Tensor) -> Tensor:
    """Return the mean relative squared error of hidden units over images and layers, in [0, 4].

    With the hidden units f of a reconstruction and r of the image, the error in a layer is
    2 ||f - r||^2 / (||f||^2 + ||r||^2), with a denominator that is constant in gradients. It does
    not depend on the scale of the units, which changes as the discriminator is trained.

    Source: Larsen et al. 2016, arXiv:1512.09300, section 2.3, where the squared error of one layer
    is not divided by anything.

    Args:
        hidden_units: Maps images to the hidden units of the discriminator.
        reconstructed: Reconstructions with their autograd graph, (B, C, H, W).
        images: Real images, (B, C, H, W).
    """
    fake_units = hidden_units(reconstructed)
    with torch.no_grad():
        real_units = hidden_units(images)
        norms = [squared_norms(units) for units in (fake_units, real_units)]
    differences = [fake - real for fake, real in zip(fake_units, real_units, strict=True)]
    scale = (norms[0] + norms[1]).clamp_min(torch.finfo(norms[0].dtype).tiny)
    return 2 * (squared_norms(differences) / scale).mean()


def squared_norms(units: Sequence[Tensor]) -> Tensor:
    """Return the squared norm in each layer (L) for each image, (L, B), of units (B, ...)."""
    return torch.stack([layer.flatten(1).square().sum(1) for layer in units])
