"""How good a trained VAE is, in figures that can be compared with papers. All in nats unless said."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaegan.config import require
from vaegan.vae.bounds import closed_form_kl, weighted_samples
from vaegan.vae.model import VAE

ACTIVE_VARIANCE = 0.01  # of a latent's posterior mean over images, above which it is active


class Scores(NamedTuple):
    """What K samples say of each image."""

    log_likelihood: Tensor  # (B,), E_q[log p(x|z)]
    kl: Tensor  # (B,), KL(q(z|x) || p(z)): in closed form where there is one, else of the samples
    log_evidence: Tensor  # (B,), importance-weighted estimate of log p(x), a lower bound on average
    latent_mean: Tensor  # (B, latent_dim), E_q[z]
    latent_variance: Tensor  # (B, latent_dim), Var_q[z]
    mean_error: (
        Tensor  # (B, latent_dim), variance of latent_mean as an estimate: 0 where it is exact
    )


def score(vae: VAE, target: Tensor, num_samples: int, chunk_size: int) -> Scores:
    """Score images with K samples of their posteriors, in memory that does not grow with K.

    Args:
        vae: In eval mode.
        target: Images on the likelihood's support, (B, C, H, W).
        num_samples: K.
        chunk_size: Latents that are decoded at once, at least one of each image.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8, with K of a thousand and more as an estimate of log p(x).
    """
    posterior, prior = vae.encode(target), vae.latent_prior()
    chunk = max(1, chunk_size // len(target))
    log_total = target.new_full((len(target),), -torch.inf)
    sums: list[Tensor] = [target.new_zeros(())] * 4
    for start in range(0, num_samples, chunk):
        samples = weighted_samples(vae, target, posterior, prior, min(chunk, num_samples - start))
        log_total = torch.logaddexp(log_total, samples.log_weights.logsumexp(0))
        log_ratio = samples.log_posterior - samples.log_prior
        parts = (samples.log_likelihood, log_ratio, samples.z, samples.z.square())
        sums = [total + part.sum(0) for total, part in zip(sums, parts, strict=True)]
    log_likelihood, kl, mean, square = (total / num_samples for total in sums)
    variance = square - mean.square()
    error = variance / max(1, num_samples - 1)
    with suppress(NotImplementedError):  # flows know neither
        mean, variance, error = posterior.mean, posterior.variance, torch.zeros_like(mean)
    exact = closed_form_kl(posterior, prior)
    log_evidence = log_total - math.log(num_samples)
    return Scores(
        log_likelihood, kl if exact is None else exact, log_evidence, mean, variance, error
    )


def figures(vae: VAE, scores: Scores) -> dict[str, float]:
    """Figures of a data set from the scores of all its images.

    Raises:
        ValueError: A score is not finite, or there is but one image.
    """
    scores = Scores(*(part.cpu().double() for part in scores))
    evidence = scores.log_evidence
    require(
        len(evidence) >= 2,
        "the number of images",
        "at least 2, for a standard error",
        len(evidence),
    )
    broken = [name for name, part in scores._asdict().items() if not part.isfinite().all()]
    require(
        not broken, "all scores", "finite (if trainer.precision is not 32-true, set it)", broken
    )
    spread = (scores.latent_variance.mean(0) + scores.latent_mean.var(0, correction=0)).sqrt()
    found = {
        "nll": -evidence.mean(),
        "nll_standard_error": evidence.std() / len(evidence) ** 0.5,
        "elbo": (scores.log_likelihood - scores.kl).mean(),
        "log_likelihood": scores.log_likelihood.mean(),
        "kl": scores.kl.mean(),
        "active_units": active_units(scores.latent_mean, scores.mean_error),
        "aggregate_mean_max": scores.latent_mean.mean(0).abs().max(),
        "aggregate_std_min": spread.min(),
        "aggregate_std_max": spread.max(),
    }
    bits = vae.likelihood.bits_per_dim(evidence.mean())
    return {
        name: float(value)
        for name, value in (found | ({} if bits is None else {"bits_per_dim": bits})).items()
    }


def active_units(latent_means: Tensor, errors: Tensor) -> Tensor:
    """How many latents carry information: those whose posterior mean, (N, latent_dim), varies over the N images.

    Args:
        latent_means: Posterior means, exact or estimated.
        errors: Variances of the estimates, of the same shape: what they add to the variance is taken off.

    Source: Burda et al. 2016, arXiv:1509.00519, section 5.1: Cov_x(E_q(u|x)[u]) > 0.01.
    """
    return (latent_means.var(0, correction=0) - errors.mean(0) > ACTIVE_VARIANCE).sum()


def split_kl(
    posterior: Distribution, prior: Distribution, chunk_size: int = 50
) -> dict[str, float]:
    """The mean KL of N images, split at their aggregate posterior q(z) = 1/N sum_n q(z|x_n).

    KL = mutual_information + marginal_kl: what z tells of which image it came from (at most log N), and how far the
    aggregate posterior is from the prior; from one sample of each image.

    Args:
        posterior: q(z|x_n), batch (N,).
        prior: p(z).
        chunk_size: Latents that are held against all N posteriors at once.

    Source: Hoffman & Johnson 2016, "ELBO surgery".
    """
    z = posterior.sample()
    own = posterior.log_prob(z)
    parts = [
        torch.logsumexp(posterior.log_prob(part.unsqueeze(1)), 1) for part in z.split(chunk_size)
    ]
    aggregate = torch.cat(parts) - math.log(len(z))
    return {
        "mutual_information": float((own - aggregate).double().mean()),
        "marginal_kl": float((aggregate - prior.log_prob(z)).double().mean()),
    }
