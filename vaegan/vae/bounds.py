"""Bounds on the evidence of images.

    log p(x) >= ELBO  = E_q(z|x) [log p(x|z)] - KL(q(z|x) || p(z))
    log p(x) >= L_K   = E_q log 1/K sum_k w_k,     w_k = p(x|z_k) p(z_k) / q(z_k|x),     rising with K to log p(x)

One reduction everywhere: sum over pixels and latents, never over the batch; nats per image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from zuko.distributions import NormalizingFlow

from vaegan.vae.model import VAE


class ELBO(NamedTuple):
    """The two terms for each image, (B,), in nats."""

    log_likelihood: Tensor
    kl: Tensor

    @property
    def value(self) -> Tensor:
        """Evidence lower bound of each image, (B,), in nats, with beta = 1."""
        return self.log_likelihood - self.kl


class WeightedSamples(NamedTuple):
    """K samples of each image's posterior, (K, B, latent_dim), and their log-densities, each (K, B), in nats."""

    z: Tensor
    log_likelihood: Tensor  # log p(x | z)
    log_prior: Tensor  # log p(z)
    log_posterior: Tensor  # log q(z | x)

    @property
    def log_weights(self) -> Tensor:
        """log w, (K, B): its mean over K is an ELBO, its log-mean-exp the importance-weighted bound."""
        return self.log_likelihood + self.log_prior - self.log_posterior


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Lets no autocast touch a density: its 16 bits are for networks, and would be nats off here."""
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean weight over the first dimension."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


@in_full_precision()
def log_prob(distribution: Distribution, value: Tensor) -> Tensor:
    """log p(value), in nats, in full precision."""
    return distribution.log_prob(value)


@in_full_precision()
def closed_form_kl(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL(posterior || prior), (B,), in nats, or None where torch knows no closed form."""
    if isinstance(posterior, MultivariateNormal) and isinstance(prior, Independent):
        if not isinstance(prior.base_dist, Normal):
            return None
        prior = MultivariateNormal(
            prior.mean, scale_tril=prior.stddev.diag_embed(), validate_args=False
        )
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        return None


def kl_method(posterior: Distribution, prior: Distribution) -> str:
    """How KL(posterior || prior) is computed: "closed form" or "Monte Carlo"."""
    return "Monte Carlo" if closed_form_kl(posterior, prior) is None else "closed form"


def kl_by_dimension(posterior: Distribution, prior: Distribution) -> Tensor | None:
    """KL of each latent dimension, (B, latent_dim), in nats, or None where it does not split into dimensions."""
    if not (isinstance(posterior, Independent) and isinstance(prior, Independent)):
        return None
    return closed_form_kl(posterior.base_dist, prior.base_dist)


@in_full_precision()
def draw(posterior: Distribution, num_samples: int) -> tuple[Tensor, Tensor]:
    """Differentiable samples (K, B, latent_dim) and their log-densities (K, B)."""
    shape = torch.Size([num_samples])
    if isinstance(posterior, NormalizingFlow):  # its density costs nothing on the way
        z, log_density = posterior.rsample_and_log_prob(shape)
        return z, log_density
    z = posterior.rsample(shape)
    return z, posterior.log_prob(z)


def log_likelihood(vae: VAE, z: Tensor, target: Tensor) -> Tensor:
    """log p(x | z), (...,), of targets (B, C, H, W) and latents (..., B, latent_dim)."""
    params = vae.decoder_params(z)
    if vae.training:
        vae.likelihood.update_running_scale(params, target)
    return log_prob(vae.likelihood(params), target)


def elbo(vae: VAE, target: Tensor, posterior: Distribution, prior: Distribution) -> ELBO:
    """One-sample estimate of the evidence lower bound of each image.

    Args:
        vae: The model.
        target: Images on the likelihood's support, (B, C, H, W).
        posterior: q(z | target), batch (B,).
        prior: p(z). The KL is in closed form where one is known, else estimated at the same sample.

    Returns:
        Log-likelihood and KL, each (B,), summed over pixels and latents, in nats per image. With a continuous
        likelihood this is a log-density: the value may be positive.

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3.
    """
    kl = closed_form_kl(posterior, prior)
    if kl is None:
        z, log_posterior = (samples[0] for samples in draw(posterior, 1))
        return ELBO(log_likelihood(vae, z, target), log_posterior - log_prob(prior, z))
    with in_full_precision():
        z = posterior.rsample()
    return ELBO(log_likelihood(vae, z, target), kl)


def weighted_samples(
    vae: VAE, target: Tensor, posterior: Distribution, prior: Distribution, num_samples: int
) -> WeightedSamples:
    """K samples of each image with their weights; targets (B, C, H, W) on the likelihood's support.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """
    z, log_posterior = draw(posterior, num_samples)
    return WeightedSamples(z, log_likelihood(vae, z, target), log_prob(prior, z), log_posterior)
