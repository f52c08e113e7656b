"""Lower bounds on the evidence log p(x) of images.

    log p(x) >= ELBO = E_q(z|x) [log p(x|z)] - KL(q(z|x) || p(z))
    log p(x) >= L_K  = E_q log (1/K sum_k w_k),   w_k = p(x|z_k) p(z_k) / q(z_k|x)

L_1 is the ELBO, and L_K increases with K towards log p(x). All values are in nats per image: they
are summed over pixels and latent dimensions and never reduced over the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from zuko.distributions import NormalizingFlow

from vaegan.runtime.seeding import drawing_noise
from vaegan.vae.model import VAE, in_full_precision


class ELBO(NamedTuple):
    """Terms of the ELBO of each image, (B,) each, in nats per image, with beta = 1."""

    log_likelihood: Tensor  # E_q [log p(x|z)], estimated from samples of q(z|x)
    kl: Tensor  # KL(q(z|x) || p(z)), in closed form or estimated

    @property
    def value(self) -> Tensor:
        """ELBO = log_likelihood - kl, (B,), in nats per image."""
        return self.log_likelihood - self.kl


class WeightedSamples(NamedTuple):
    """K posterior samples of each image and the log-densities of their weights, in nats."""

    z: Tensor  # samples of q(z | x), (K, B, latent_dim)
    log_likelihood: Tensor  # log p(x | z), (K, B)
    log_prior: Tensor  # log p(z), (K, B)
    log_posterior: Tensor  # log q(z | x), (K, B)

    @property
    def log_weights(self) -> Tensor:
        """log w_k = log p(x | z_k) + log p(z_k) - log q(z_k | x), (K, B), in nats.

        The mean over K estimates the ELBO, and `log_mean_exp` over K estimates L_K.
        """
        return self.log_likelihood + self.log_prior - self.log_posterior


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return log (1/K sum_k w_k), (...), of log-weights (K, ...), without overflow."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


@in_full_precision()
def log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """Return the log-density or log-mass of a value in nats, computed without autocast."""
    return distribution.log_prob(value)


@in_full_precision()
@drawing_noise()
def rsample_and_log_prob(posterior: Distribution, num_samples: int) -> tuple[Tensor, Tensor]:
    """Draw K differentiable samples of q(z | x) for each image.

    Returns:
        Samples, (K, B, latent_dim), and their log-densities, (K, B), in nats.
    """
    shape = torch.Size([num_samples])
    if isinstance(posterior, NormalizingFlow):  # avoids inverting the flow
        return posterior.rsample_and_log_prob(shape)
    z = posterior.rsample(shape)
    return z, posterior.log_prob(z)


@in_full_precision()
def closed_form_kl(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """Return KL(posterior || prior), (B,), in nats, or None if torch implements no closed form."""
    if isinstance(posterior, MultivariateNormal) and isinstance(prior, Independent):
        if not isinstance(prior.base_dist, Normal):
            return None
        scale_tril = prior.stddev.diag_embed()
        prior = MultivariateNormal(prior.mean, scale_tril=scale_tril, validate_args=False)
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        return None


def kl_by_dimension(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """Return the KL of each latent dimension, (B, latent_dim), in nats.

    The result is None unless both distributions are independent over dimensions.
    """
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    return closed_form_kl(posterior.base_dist, prior.base_dist)


def kl_method(posterior: Distribution, prior: Distribution) -> str:
    """Return how KL(posterior || prior) is computed: "closed form" or "Monte Carlo"."""
    return "Monte Carlo" if closed_form_kl(posterior, prior) is None else "closed form"


def log_likelihood(vae: VAE, z: Tensor, target: Tensor) -> Tensor:
    """Return log p(x | z), (..., B), in nats per image.

    In training mode this first updates the running noise scale of the likelihood, if it has one.

    Args:
        vae: The model.
        z: Latents, (..., B, latent_dim).
        target: Images on the likelihood's support, (B, C, H, W).
    """
    params = vae.decoder_params(z)
    if vae.training:
        vae.likelihood.update_running_scale(params, target)
    return log_prob(vae.likelihood(params), target)


def elbo(vae: VAE, target: Tensor, posterior: Distribution, prior: Distribution) -> ELBO:
    """Estimate the evidence lower bound (ELBO) of each image from one posterior sample.

    The KL is computed in closed form if one is known, else estimated as log q(z|x) - log p(z) at
    the same sample.

    Args:
        vae: The model.
        target: Images on the likelihood's support, (B, C, H, W).
        posterior: q(z | target), batch shape (B,).
        prior: p(z), batch shape ().

    Returns:
        Log-likelihood and KL, (B,) each, in nats per image. A continuous likelihood gives a
        log-density, so the ELBO may be positive.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3.
    """
    kl = closed_form_kl(posterior, prior)
    if kl is None:
        samples, log_densities = rsample_and_log_prob(posterior, num_samples=1)
        z = samples[0]
        return ELBO(log_likelihood(vae, z, target), log_densities[0] - log_prob(prior, z))
    with in_full_precision(), drawing_noise():
        z = posterior.rsample()
    return ELBO(log_likelihood(vae, z, target), kl)


def weighted_samples(
    vae: VAE, target: Tensor, posterior: Distribution, prior: Distribution, num_samples: int
) -> WeightedSamples:
    """Draw K posterior samples of each image and compute the terms of their importance weights.

    Args:
        vae: The model.
        target: Images on the likelihood's support, (B, C, H, W).
        posterior: q(z | target), batch shape (B,).
        prior: p(z), batch shape ().
        num_samples: K.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """
    z, log_posterior = rsample_and_log_prob(posterior, num_samples)
    return WeightedSamples(z, log_likelihood(vae, z, target), log_prob(prior, z), log_posterior)
