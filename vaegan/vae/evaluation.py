"""Evaluation of a trained VAE: metrics that compare with papers, in nats unless noted."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaegan.config import require
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.vae.bounds import closed_form_kl, weighted_samples
from vaegan.vae.model import VAE

ACTIVE_VARIANCE = 0.01  # a latent is active if its posterior mean varies more than this over images


class ImageScores(NamedTuple):
    """Estimates for each image from K samples of its posterior."""

    log_likelihood: Tensor  # (B,), E_q[log p(x|z)]
    kl: Tensor  # (B,), KL(q(z|x) || p(z)), in closed form if there is one
    log_evidence: Tensor  # (B,), importance-weighted estimate of log p(x), a lower bound on average
    latent_mean: Tensor  # (B, latent_dim), E_q[z]
    latent_variance: Tensor  # (B, latent_dim), Var_q[z]
    mean_error: Tensor  # (B, latent_dim), variance of the estimate `latent_mean`; 0 if it is exact


def score_images(vae: VAE, target: Tensor, num_samples: int, chunk_size: int) -> ImageScores:
    """Score images with K samples of their posteriors, in memory that does not grow with K.

    Args:
        vae: In eval mode.
        target: Images on the likelihood's support, (B, C, H, W).
        num_samples: K.
        chunk_size: Latents that are decoded at once, at least one for each image.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8; with K of 1,000 and more an estimate of
    log p(x).
    """
    posterior = vae.encode(target)
    prior = vae.latent_prior()
    samples_per_chunk = max(1, chunk_size // len(target))
    log_total_weight = target.new_full((len(target),), -torch.inf)
    log_likelihood = log_ratio = z_sum = z_square_sum = target.new_zeros(())
    for start in range(0, num_samples, samples_per_chunk):
        size = min(samples_per_chunk, num_samples - start)
        samples = weighted_samples(vae, target, posterior, prior, size)
        log_total_weight = torch.logaddexp(log_total_weight, samples.log_weights.logsumexp(0))
        log_likelihood = log_likelihood + samples.log_likelihood.sum(0)
        log_ratio = log_ratio + (samples.log_posterior - samples.log_prior).sum(0)
        z_sum = z_sum + samples.z.sum(0)
        z_square_sum = z_square_sum + samples.z.square().sum(0)
    mean = z_sum / num_samples
    variance = z_square_sum / num_samples - mean.square()
    mean_error = variance / max(1, num_samples - 1)
    with suppress(NotImplementedError):  # flows have neither
        mean, variance = posterior.mean, posterior.variance
        mean_error = torch.zeros_like(mean)
    kl = closed_form_kl(posterior, prior)
    return ImageScores(
        log_likelihood=log_likelihood / num_samples,
        kl=log_ratio / num_samples if kl is None else kl,
        log_evidence=log_total_weight - math.log(num_samples),
        latent_mean=mean,
        latent_variance=variance,
        mean_error=mean_error,
    )


def summarize_scores(scores: ImageScores, likelihood: Likelihood) -> dict[str, float]:
    """Compute the metrics of a data set.

    Args:
        scores: Of all its images.
        likelihood: Of the model; defines bits per dimension.

    Raises:
        ValueError: A score is not finite, or there is only one image.
    """
    scores = ImageScores(*(values.cpu().double() for values in scores))
    num_images = len(scores.log_evidence)
    expected = "at least 2, for a standard error"
    require(num_images >= 2, "the number of images", expected, num_images)
    broken = [name for name, values in scores._asdict().items() if not values.isfinite().all()]
    expected = "finite (if trainer.precision is not 32-true, set it)"
    require(not broken, "all scores", expected, broken)

    variance_of_means = scores.latent_mean.var(0, correction=0)
    aggregate_std = (scores.latent_variance.mean(0) + variance_of_means).sqrt()
    mean_evidence = scores.log_evidence.mean()
    metrics = {
        "nll": -mean_evidence,
        "nll_standard_error": scores.log_evidence.std() / num_images**0.5,
        "elbo": (scores.log_likelihood - scores.kl).mean(),
        "log_likelihood": scores.log_likelihood.mean(),
        "kl": scores.kl.mean(),
        "active_units": count_active_units(scores.latent_mean, scores.mean_error),
        "aggregate_mean_max": scores.latent_mean.mean(0).abs().max(),
        "aggregate_std_min": aggregate_std.min(),
        "aggregate_std_max": aggregate_std.max(),
    }
    bits_per_dim = likelihood.bits_per_dim(mean_evidence)
    if bits_per_dim is not None:
        metrics["bits_per_dim"] = bits_per_dim
    return {name: float(value) for name, value in metrics.items()}


def count_active_units(latent_mean: Tensor, mean_error: Tensor) -> Tensor:
    """Count the latents that carry information: those whose posterior mean varies over images.

    Args:
        latent_mean: Posterior means, exact or estimated, (N, latent_dim).
        mean_error: Variances of the estimates, same shape; subtracted from the variance.

    Source: Burda et al. 2016, arXiv:1509.00519, section 5.1: Cov_x(E_q(u|x)[u]) > 0.01.
    """
    variance = latent_mean.var(0, correction=0) - mean_error.mean(0)
    return (variance > ACTIVE_VARIANCE).sum()


def split_kl(
    posterior: Distribution, prior: Distribution, chunk_size: int = 50
) -> dict[str, float]:
    """Split the mean KL of N images at their aggregate posterior q(z) = 1/N sum_n q(z|x_n).

    KL = mutual_information + marginal_kl: the information of z about the index of the image, at
    most log N, and the KL from the aggregate posterior to the prior. Both are estimated from one
    sample of each image.

    Args:
        posterior: q(z|x_n), batch (N,).
        prior: p(z).
        chunk_size: Latents that are compared with all N posteriors at once.

    Source: Hoffman & Johnson 2016, "ELBO surgery".
    """
    z = posterior.sample()
    log_own = posterior.log_prob(z)
    log_sums = []
    for chunk in z.split(chunk_size):
        log_densities = posterior.log_prob(chunk.unsqueeze(1))  # (chunk, N)
        log_sums.append(torch.logsumexp(log_densities, 1))
    log_aggregate = torch.cat(log_sums) - math.log(len(z))
    mutual_information = (log_own - log_aggregate).double().mean()
    marginal_kl = (log_aggregate - prior.log_prob(z)).double().mean()
    return {"mutual_information": float(mutual_information), "marginal_kl": float(marginal_kl)}
