"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaegan.config import require
from vaegan.vae.model import VAE

log = logging.getLogger(__name__)


class AggregatePosterior(nn.Module):
    """Normal with the mean and covariance of the latents of a training set: q(z) = E_x q(z|x) in two moments."""

    mean: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.eye(latent_dim))

    @torch.no_grad()
    def fit(self, vae: VAE, images: Tensor, batch_size: int = 500) -> None:
        """Set both moments from one latent of each image, drawn from q(z|x) with torch's global generator.

        Args:
            vae: The model, on the device of the images.
            images: In [0, 1], (N, C, H, W), N larger than the latent dimension.
        """
        parts = [
            vae.encode(vae.likelihood.target(part)).sample() for part in images.split(batch_size)
        ]
        latents = torch.cat(parts).double()
        require(
            len(latents) > latents.shape[1],
            "the number of training images",
            "above latent_dim",
            len(latents),
        )
        covariance = torch.cov(latents.T) + 1e-6 * torch.eye(latents.shape[1], dtype=latents.dtype)
        self.mean.copy_(latents.mean(0))
        self.scale_tril.copy_(torch.linalg.cholesky(covariance))

    def forward(self) -> MultivariateNormal:
        """q(z), batch ()."""
        return MultivariateNormal(self.mean, scale_tril=self.scale_tril)


class Latents(nn.Module):
    """Where a generator's latents come from: the VAE's prior, or the normal fitted to its aggregate posterior."""

    def __init__(self, vae: VAE, aggregate: AggregatePosterior | None) -> None:
        super().__init__()
        self.vae, self.aggregate = vae, aggregate

    def forward(self) -> Distribution:
        """Distribution of latents, batch ()."""
        return latent_distribution(self.vae, self.aggregate)


def latent_distribution(vae: VAE, aggregate: AggregatePosterior | None) -> Distribution:
    """The aggregate posterior's normal where there is one, else the VAE's prior: of latents, batch ()."""
    distribution: Distribution = vae.latent_prior() if aggregate is None else aggregate()
    return distribution
