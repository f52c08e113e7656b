"""Training objectives of a VAE. A loss may weight the KL by beta or leave bits of it free.

The reported bounds never do. Sum over pixels and latents, mean over the batch; nats per image. To
add an objective, write one class here: it is then a choice (`objective=NAME`).

    elbo    -ELBO, its KL weighted by beta and free below some bits
    iwae    -L_K, by its own gradient
    dreg    -L_K, by its doubly reparameterized gradient
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from vaegan.config import Component, ComponentConfig, require
from vaegan.runtime.collectives import all_reduce_mean
from vaegan.vae.bounds import (
    ELBO,
    WeightedSamples,
    elbo,
    kl_by_dimension,
    log_likelihood,
    log_mean_exp,
    log_prob,
    rsample_and_log_prob,
    weighted_samples,
)
from vaegan.vae.model import VAE, full_precision

# Fraction of beta as a function of progress, in units of the warm-up since the start of training.
BETA_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: min(1.0, progress),
    "cosine": lambda progress: 0.5 * (1 - math.cos(math.pi * min(1.0, progress))),
    "cyclical": lambda progress: min(1.0, 2 * (progress % 1)),  # Fu et al. 2019, arXiv:1903.10145
}


class ObjectiveOutput(NamedTuple):
    """Loss of a batch, and the bounds that are reported, at beta = 1."""

    loss: Tensor  # scalar; only its gradient matters
    elbo: ELBO
    bound: Tensor  # (B,), in nats; validation chooses the checkpoint by its mean


class Objective(Component, abc.ABC, group="objective"):
    """Loss of VAE training, and the bound that it raises.

    Attributes:
        bound_name: Tag of the bound: `val/<bound_name>` chooses the best checkpoint.
        num_samples: Latents of each image that are decoded in a step.
    """

    bound_name: ClassVar[str]
    num_samples: int = 1

    @dataclass
    class Config(ComponentConfig):
        """Settings of an objective; `build()` constructs it."""

        beta: float = (
            1.0  # weight of log p(z) - log q(z|x) after the warm-up; 1 is the bound itself
        )
        # constant, linear, cosine, or cyclical (each cycle: half rising, half at beta)
        beta_schedule: str = "linear"
        # epochs of the rise from 0, or of one whole cycle if cyclical; constant ignores it
        beta_warmup_epochs: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.beta >= 0, "beta", "at least 0", self.beta)
            is_known = self.beta_schedule in BETA_SCHEDULES
            expected = f"one of {', '.join(BETA_SCHEDULES)}"
            require(is_known, "beta_schedule", expected, self.beta_schedule)
            epochs = self.beta_warmup_epochs
            require(epochs >= 0, "beta_warmup_epochs", "at least 0", epochs)

        @property
        def bound_name(self) -> str:
            """Tag of the reported bound."""
            return self.component.bound_name

        def beta_at(self, epoch: float) -> float:
            """Return the weight of the KL at a time of training, in fractional epochs."""
            if self.beta_warmup_epochs == 0:
                return self.beta
            schedule = BETA_SCHEDULES[self.beta_schedule]
            return self.beta * schedule(epoch / self.beta_warmup_epochs)

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        """Compute loss and bounds of images in [0, 1], (B, C, H, W)."""


class ElboObjective(Objective):
    """ELBO from one sample, its KL weighted by beta and free below `free_bits` per dimension.

    Source: Kingma & Welling 2014, arXiv:1312.6114; beta: Higgins et al. 2017; free bits: Kingma et
    al. 2016, arXiv:1606.04934, eq. 15.
    """

    bound_name = "elbo"

    @dataclass
    class Config(Objective.Config):
        name: str = "elbo"
        free_bits: float = 0.0  # nats per latent dimension; a lower mean KL is not penalized

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.free_bits >= 0, "free_bits", "at least 0", self.free_bits)

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior = vae.encode(target)
        prior = vae.latent_prior()
        terms = elbo(vae, target, posterior, prior)
        kl = terms.kl.mean()
        free_bits = self.config.free_bits
        if free_bits > 0:
            dimensions = kl_by_dimension(posterior, prior)
            if dimensions is None:  # the dimensions share their free bits
                kl = clamp_to_free_bits(kl, free_bits * vae.prior.latent_dim)
            else:
                kl = clamp_to_free_bits(dimensions.mean(0), free_bits).sum()
        loss = beta * kl - terms.log_likelihood.mean()
        return ObjectiveOutput(loss, terms, terms.value)


def clamp_to_free_bits(kl: Tensor, free_bits: float) -> Tensor:
    """Replace a batch mean of the KL by `free_bits` if it is lower; it then has no gradient.

    In training, the mean over the images of all devices decides. In validation the devices may have
    different numbers of batches, so nothing is reduced.
    """
    global_kl = all_reduce_mean(kl.detach()) if kl.requires_grad else kl
    return torch.where(global_kl > free_bits, kl, free_bits)


class ImportanceWeighted(Objective, abc.ABC):
    """Importance-weighted bound with K samples.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """

    bound_name = "iw_bound"

    @dataclass
    class Config(Objective.Config):
        num_samples: int = 50  # K latents of each image in each step
        beta_schedule: str = "constant"

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_samples = config.num_samples


def beta_log_weights(samples: WeightedSamples, beta: float) -> Tensor:
    """Return log w with its KL part weighted by beta, (K, B)."""
    return samples.log_likelihood + beta * (samples.log_prior - samples.log_posterior)


def importance_weighted_output(samples: WeightedSamples, loss: Tensor) -> ObjectiveOutput:
    """Return the loss with the ELBO and the bound that the samples estimate."""
    kl = (samples.log_posterior - samples.log_prior).mean(0)
    terms = ELBO(samples.log_likelihood.mean(0), kl)
    return ObjectiveOutput(loss, terms, log_mean_exp(samples.log_weights))


class IwaeObjective(ImportanceWeighted):
    """The bound's own gradient."""

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "iwae"

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior = vae.encode(target)
        prior = vae.latent_prior()
        samples = weighted_samples(vae, target, posterior, prior, self.num_samples)
        loss = -log_mean_exp(beta_log_weights(samples, beta)).mean()
        return importance_weighted_output(samples, loss)


class DregObjective(ImportanceWeighted):
    """The bound's doubly reparameterized gradient.

    Its signal-to-noise ratio for the encoder does not fall as K grows.

    Source: Tucker et al. 2019, arXiv:1810.04152, eq. 8.
    """

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "dreg"

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        features = full_precision(vae.encoder(target))
        z, _ = rsample_and_log_prob(vae.posterior(features), self.num_samples)
        # q(z|x) with constant parameters: its gradient flows through z alone
        constants = {name: value.detach() for name, value in vae.posterior.named_parameters()}
        posterior = functional_call(vae.posterior, constants, (features.detach(),))
        prior = vae.latent_prior()
        samples = WeightedSamples(
            z, log_likelihood(vae, z, target), log_prob(prior, z), log_prob(posterior, z)
        )
        log_weights = beta_log_weights(samples, beta)
        weights = log_weights.detach().softmax(0)
        if (
            z.requires_grad
        ):  # DReG weights the path derivative by w_k^2: the loss has one factor w_k,
            # this hook has the other. For beta < 1 it interpolates to a single factor.
            factors = (1 - beta + beta * weights).unsqueeze(-1)
            z.register_hook(lambda gradient: factors * gradient)
        return importance_weighted_output(samples, -(weights * log_weights).sum(0).mean())
