"""VAE with a known evidence: a linear decoder with Gaussian noise."""

import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from tests.conftest import compose
from vaegan.vae.model import VAE

SHAPE, DIM, SCALE = (1, 4, 4), 2, 0.5


class Linear(nn.Module):
    """Linear decoder without a bias."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z):
        return (z @ self.weight).view(-1, *SHAPE)


class IdentityGaussian(nn.Module):
    """Gaussian likelihood without a sigmoid on the mean, so that the evidence is Gaussian."""

    def forward(self, params):
        return Independent(Normal(params, SCALE), 3)


class LinearGaussian:
    """VAE with z ~ N(0, I) and x = z W + noise.

    The encoder returns the exact posterior with `offset` added to its mean.
    """

    def __init__(self, offset):
        config = compose(
            "stage=vae", "likelihood=gaussian", "likelihood.dequantize=false", f"latent_dim={DIM}"
        )
        self.vae = VAE(SHAPE, config).eval().requires_grad_(False)
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(DIM, 16, generator=generator) * 0.3
        self.vae.decoder = Linear(self.weight).requires_grad_(False)
        self.vae.likelihood.forward = IdentityGaussian().forward
        precision = torch.eye(DIM) + self.weight @ self.weight.T / SCALE**2
        self.covariance = torch.linalg.inv(precision)
        self.offset = offset
        self.vae.encode = self.encode

    def encode(self, x):
        mean = x.flatten(1) @ self.weight.T / SCALE**2 @ self.covariance
        return MultivariateNormal(mean + self.offset, self.covariance)

    def images(self, num):
        """Sample images from the model, (num, 1, 4, 4)."""
        return self.vae.decode(torch.randn(num, DIM)).sample()

    def log_evidence(self, x):
        """Return the exact log p(x), (num,)."""
        covariance = self.weight.T @ self.weight + SCALE**2 * torch.eye(16)
        return MultivariateNormal(torch.zeros(16), covariance).log_prob(x.flatten(1))
