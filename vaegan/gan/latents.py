"""Latent distributions of a GAN."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaegan.config import require
from vaegan.probability.distributions import KernelDensity
from vaegan.runtime.seeding import seeded
from vaegan.vae.model import VAE

COVARIANCE_JITTER = 1e-6  # added to the diagonal of the covariance, in squared latent units
LATENTS_PER_BLOCK = 512  # latents drawn from one seed by `draw_latents`


@torch.no_grad()
def draw_latents(latents: Distribution, num_latents: int, seed: int, draw: int = 0) -> Tensor:
    """Draw the latents of the images that are scored, (num_latents, latent_dim).

    Latent i is a function of (seed, draw, i). It does not depend on the number of latents, the
    batch size, the number of devices or the stage.

    Args:
        latents: Latent distribution, batch shape (), event shape (latent_dim,).
        num_latents: Number of latents, >= 1.
        seed: Random seed of the run.
        draw: Index of the draw, for independent sets of latents with the same seed.
    """
    blocks = []
    for block in range(-(-num_latents // LATENTS_PER_BLOCK)):
        with seeded(seed, "scores", draw, block):
            blocks.append(latents.sample(torch.Size([LATENTS_PER_BLOCK])))
    return torch.cat(blocks)[:num_latents]


def check_num_images(num_images: int, latent_dim: int) -> None:
    """Check that an aggregate posterior can be fitted: the covariance must not be singular.

    Raises:
        ValueError: `num_images` <= `latent_dim`.
    """
    expected = f"above latent_dim={latent_dim} with warm_start.aggregate_posterior=true"
    is_valid = num_images > latent_dim
    require(is_valid, "the number of training images", expected, num_images)


class AggregatePosterior(nn.Module):
    """Kernel density estimate of the aggregate posterior.

    The aggregate posterior is q(z) = E_x q(z|x), with x from the training set. With the mean m and
    the covariance C of one sample z_i ~ q(z|x_i) for each of N images, and a bandwidth h,

        p(z) = 1/N sum_i N(z; m + sqrt(1 - h^2) (z_i - m), h^2 C).

    For any h its mean is m, and its covariance is C (up to a factor of 1 - (1 - h^2)/N, because C
    is unbiased). With h = 1 it is a single normal; with a small h, each sample is close to a z_i.

    Source: shrunken kernels by West 1993, "Approximating posterior distributions by mixture".

    Args:
        latent_dim: Dimension of the latents. Before `fit` the distribution is standard normal.
        num_centers: Number of kernels N; 0: a single normal.
    """

    mean: Tensor
    scale_tril: Tensor
    centers: Tensor | None

    def __init__(self, latent_dim: int, num_centers: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.eye(latent_dim))
        centers = torch.zeros(num_centers, latent_dim) if num_centers else None
        self.register_buffer("centers", centers)

    @torch.no_grad()
    def fit(self, vae: VAE, batches: Iterable[Tensor], bandwidth: float) -> None:
        """Fit the distribution to one posterior sample z ~ q(z|x) per image.

        The samples come from torch's global generator.

        Args:
            vae: Trained VAE.
            batches: Training images in [0, 1], (B, C, H, W), on any device; more than latent_dim
                images in total (`check_num_images`).
            bandwidth: Bandwidth h, in (0, 1].
        """
        device = next(vae.parameters()).device
        samples = []
        for batch in batches:
            target = vae.likelihood.target(batch.to(device))
            samples.append(vae.encode(target).sample())
        latents = torch.cat(samples).cpu().double()  # MPS has no float64
        latent_dim = latents.shape[1]
        jitter = COVARIANCE_JITTER * torch.eye(
            latent_dim, dtype=latents.dtype, device=latents.device
        )
        mean = latents.mean(0)
        covariance = torch.cov(latents.T) + jitter
        self.mean.copy_(mean)
        self.scale_tril.copy_(bandwidth * torch.linalg.cholesky(covariance))
        shrinkage = math.sqrt(1 - bandwidth**2)
        centers = (mean + shrinkage * (latents - mean)).to(self.mean)
        self.centers = centers if bandwidth < 1 else None

    def forward(self) -> Distribution:
        """Return the fitted distribution, batch shape (), event shape (latent_dim,)."""
        if self.centers is None:
            return MultivariateNormal(self.mean, scale_tril=self.scale_tril)
        return KernelDensity(self.centers, self.scale_tril)


class Latents(nn.Module):
    """Latent distribution of a GAN: the fitted aggregate posterior, or the VAE's prior p(z).

    Args:
        vae: VAE that provides the prior.
        aggregate: Fitted aggregate posterior; None: use the prior.
    """

    def __init__(self, vae: VAE, aggregate: AggregatePosterior | None) -> None:
        super().__init__()
        self.vae = vae
        self.aggregate = aggregate

    def forward(self) -> Distribution:
        """Return the latent distribution, batch shape (), event shape (latent_dim,)."""
        return self.vae.latent_prior() if self.aggregate is None else self.aggregate()
