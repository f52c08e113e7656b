"""Distributions that a generator's latents are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaegan.config import require
from vaegan.vae.model import VAE

COVARIANCE_JITTER = 1e-6  # latent units squared, added to the diagonal


class AggregatePosterior(nn.Module):
    """Normal with the mean and covariance of q(z) = E_x q(z|x) over a training set."""

    mean: Tensor
    scale_tril: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("scale_tril", torch.eye(latent_dim))

    @torch.no_grad()
    def fit(self, vae: VAE, images: Tensor, batch_size: int = 500) -> None:
        """Set both moments from one latent of each image, drawn with torch's global generator.

        Args:
            vae: The model, on the device of the images.
            images: In [0, 1], (N, C, H, W), N larger than the latent dimension.
            batch_size: Images that are encoded at once.
        """
        samples = []
        for batch in images.split(batch_size):
            target = vae.likelihood.target(batch)
            samples.append(vae.encode(target).sample())
        latents = torch.cat(samples).double()
        num_images, latent_dim = latents.shape
        is_enough = num_images > latent_dim
        require(is_enough, "the number of training images", "above latent_dim", num_images)
        jitter = COVARIANCE_JITTER * torch.eye(
            latent_dim, dtype=latents.dtype, device=latents.device
        )
        covariance = torch.cov(latents.T) + jitter
        self.mean.copy_(latents.mean(0))
        self.scale_tril.copy_(torch.linalg.cholesky(covariance))

    def forward(self) -> MultivariateNormal:
        """Return q(z), batch ()."""
        return MultivariateNormal(self.mean, scale_tril=self.scale_tril)


class Latents(nn.Module):
    """The VAE's prior, or the normal fitted to its aggregate posterior where there is one."""

    def __init__(self, vae: VAE, aggregate: AggregatePosterior | None) -> None:
        super().__init__()
        self.vae = vae
        self.aggregate = aggregate

    def forward(self) -> Distribution:
        """Return the distribution of latents, batch ()."""
        return self.vae.latent_prior() if self.aggregate is None else self.aggregate()
