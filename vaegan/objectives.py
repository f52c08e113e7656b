"""The ELBO and the loss that a VAE minimises.

    log p(x) >= ELBO = E_q(z|x) [log p(x|z)] - KL(q(z|x) || p(z))

One reduction everywhere: sum over pixels and latents, mean over the batch; nats per image. The loss may weigh the KL by
beta; whatever is reported has beta = 1. Source: Kingma & Welling 2014, arXiv:1312.6114.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from vaegan.config import require
from vaegan.models import VAE


@dataclass
class ObjectiveConfig:
    """The weight of the KL during training."""

    beta: float = 1.0  # weight of the KL after the warm-up; 1 is the ELBO
    beta_warmup_epochs: float = 1.0  # epochs in which the weight rises linearly from 0

    def __post_init__(self) -> None:
        require(self.beta >= 0, "beta", "at least 0", self.beta)
        require(self.beta_warmup_epochs >= 0, "beta_warmup_epochs", "at least 0", self.beta_warmup_epochs)

    def beta_at(self, epoch: float) -> float:
        """Weight of the KL at a point of the training, in epochs (fractions count)."""
        return self.beta * min(1.0, epoch / self.beta_warmup_epochs) if self.beta_warmup_epochs else self.beta


class ELBO(NamedTuple):
    """The two terms for each image, (B,), in nats."""

    log_likelihood: Tensor
    kl: Tensor

    @property
    def value(self) -> Tensor:
        """Evidence lower bound of each image, (B,), in nats, with beta = 1."""
        return self.log_likelihood - self.kl


def elbo(vae: VAE, x: Tensor) -> ELBO:
    """One-sample estimate of the evidence lower bound of each image.

    Args:
        vae: The model.
        x: Images in [0, 1], shape (B, C, H, W).

    Returns:
        Log-likelihood and KL, each (B,), summed over pixels and latents, in nats per image. With a continuous
        likelihood this is a log-density: the value may be positive.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3.
    """
    target = vae.likelihood.target(x)
    posterior = vae.encode(target)
    z = posterior.rsample()
    return ELBO(vae.decode(z).log_prob(target), kl(posterior, vae.latent_prior(), z))


def kl(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """KL(posterior || prior), (B,), in nats: in closed form where torch has one, else the one-sample estimate at z."""
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        log_ratio: Tensor = posterior.log_prob(z) - prior.log_prob(z)
        return log_ratio


def training_loss(terms: ELBO, beta: float) -> Tensor:
    """Scalar to minimise: mean over the batch of -log-likelihood + beta KL, in nats per image."""
    return (beta * terms.kl - terms.log_likelihood).mean()
