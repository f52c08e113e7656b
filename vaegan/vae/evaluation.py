"""Evaluation metrics of a trained VAE, in nats per image unless noted."""

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

# A latent dimension is active if the variance of its posterior mean over images is larger.
ACTIVE_VARIANCE = 0.01
# Importance samples per batch of images: a few seconds on a CPU, so that progress is shown soon.
SAMPLES_PER_BATCH = 20_000


class ImageScores(NamedTuple):
    """Scores of each image, estimated from K posterior samples. Log-densities are in nats."""

    log_likelihood: Tensor  # E_q[log p(x|z)], (B,)
    kl: Tensor  # KL(q(z|x) || p(z)), (B,), in closed form if one is known
    log_evidence: Tensor  # log (1/K sum_k w_k), (B,); its expectation is L_K <= log p(x)
    latent_mean: Tensor  # E_q[z], (B, latent_dim)
    latent_variance: Tensor  # Var_q[z], (B, latent_dim)
    # squared standard error of latent_mean, (B, latent_dim); 0 if latent_mean is exact
    latent_mean_error: Tensor


def images_per_batch(batch_size: int, num_samples: int) -> int:
    """Return the number of images to score at once: fewer than `batch_size` with many samples."""
    return min(batch_size, max(1, SAMPLES_PER_BATCH // num_samples))


def score_images(vae: VAE, target: Tensor, num_samples: int, chunk_size: int) -> ImageScores:
    """Score images with K posterior samples each. Memory does not grow with K.

    Args:
        vae: The model, in eval mode.
        target: Images on the likelihood's support, (B, C, H, W).
        num_samples: K; with 1,000 or more, `log_evidence` is a common estimate of log p(x).
        chunk_size: Number of latents decoded at once. At least one per image is decoded.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
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
    mean_error = variance / max(1, num_samples - 1)  # squared standard error
    with suppress(NotImplementedError):  # a flow has no closed-form moments
        mean, variance = posterior.mean, posterior.variance
        mean_error = torch.zeros_like(mean)
    kl = closed_form_kl(posterior, prior)
    return ImageScores(
        log_likelihood=log_likelihood / num_samples,
        kl=log_ratio / num_samples if kl is None else kl,
        log_evidence=log_total_weight - math.log(num_samples),
        latent_mean=mean,
        latent_variance=variance,
        latent_mean_error=mean_error,
    )


def summarize_scores(scores: ImageScores, likelihood: Likelihood) -> dict[str, float]:
    """Compute the metrics of a data set from the scores of its images.

    Returns:
        Means over images in nats per image: `nll` = -log_evidence with its standard error, `elbo`,
        `log_likelihood`, `kl`. The number of `active_units`. Largest |mean| and extreme standard
        deviations of the aggregate posterior, in latent units. `bits_per_dim` if it is defined.

    Raises:
        ValueError: A score is not finite, or there are fewer than 2 images.
    """
    scores = ImageScores(*(values.cpu().double() for values in scores))
    num_images = len(scores.log_evidence)
    expected = "at least 2, to compute a standard error"
    require(num_images >= 2, "the number of images", expected, num_images)
    non_finite = [name for name, values in scores._asdict().items() if not values.isfinite().all()]
    expected = "finite (if the model was not trained with trainer.precision=32-true, try it)"
    require(not non_finite, "all scores", expected, non_finite)

    # law of total variance for the aggregate posterior 1/N sum_n q(z|x_n)
    variance_of_means = scores.latent_mean.var(0, correction=0)
    aggregate_std = (scores.latent_variance.mean(0) + variance_of_means).sqrt()
    mean_evidence = scores.log_evidence.mean()
    metrics = {
        "nll": -mean_evidence,
        "nll_standard_error": scores.log_evidence.std() / num_images**0.5,
        "elbo": (scores.log_likelihood - scores.kl).mean(),
        "log_likelihood": scores.log_likelihood.mean(),
        "kl": scores.kl.mean(),
        "active_units": count_active_units(scores.latent_mean, scores.latent_mean_error),
        "aggregate_mean_max": scores.latent_mean.mean(0).abs().max(),
        "aggregate_std_min": aggregate_std.min(),
        "aggregate_std_max": aggregate_std.max(),
    }
    bits_per_dim = likelihood.bits_per_dim(mean_evidence)
    if bits_per_dim is not None:
        metrics["bits_per_dim"] = bits_per_dim
    return {name: float(value) for name, value in metrics.items()}


def count_active_units(latent_mean: Tensor, latent_mean_error: Tensor) -> Tensor:
    """Count the active latent dimensions u: Var_x(E_q(u|x)[u]) > 0.01.

    Args:
        latent_mean: Posterior means, exact or estimated, (N, latent_dim).
        latent_mean_error: Squared standard errors of the means, (N, latent_dim). Their average is
            subtracted from the variance, which they would otherwise inflate.

    Returns:
        Number of active dimensions, integer, ().

    Source: Burda et al. 2016, arXiv:1509.00519, section 5.
    """
    variance = latent_mean.var(0, correction=0) - latent_mean_error.mean(0)
    return (variance > ACTIVE_VARIANCE).sum()


def split_kl(
    posterior: Distribution, prior: Distribution, chunk_size: int = 50
) -> dict[str, float]:
    """Split the mean KL of N images with their aggregate posterior q(z) = 1/N sum_n q(z|x_n).

        1/N sum_n KL(q(z|x_n) || p(z)) = mutual_information + marginal_kl
        mutual_information = 1/N sum_n KL(q(z|x_n) || q(z)), at most log N
        marginal_kl        = KL(q(z) || p(z))

    Both terms are estimated from one sample of each posterior.

    Args:
        posterior: q(z|x_n), batch shape (N,).
        prior: p(z), batch shape ().
        chunk_size: Number of samples whose densities under all N posteriors are computed at once.

    Returns:
        `mutual_information` and `marginal_kl`, in nats per image.

    Source: Hoffman & Johnson 2016, "ELBO surgery".
    """
    z = posterior.sample()
    log_posterior = posterior.log_prob(z)
    log_sums = []
    for chunk in z.split(chunk_size):
        log_densities = posterior.log_prob(chunk.unsqueeze(1))  # (chunk, N)
        log_sums.append(torch.logsumexp(log_densities, 1))
    log_aggregate = torch.cat(log_sums) - math.log(len(z))
    mutual_information = (log_posterior - log_aggregate).double().mean()
    marginal_kl = (log_aggregate - prior.log_prob(z)).double().mean()
    return {"mutual_information": float(mutual_information), "marginal_kl": float(marginal_kl)}
