"""What stage vae minimizes. A loss may weigh the KL by beta and leave bits of it free; the report never does.

Sum over pixels and latents, mean over the batch; nats per image. To add an objective, write one class here: it is at
once a choice (`objective=NAME`).

    elbo    -ELBO, its KL weighted and free below some bits
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
    draw,
    elbo,
    kl_by_dimension,
    log_likelihood,
    log_mean_exp,
    log_prob,
    weighted_samples,
)
from vaegan.vae.model import VAE, full_precision

SCHEDULES: dict[
    str, Callable[[float], float]
] = {  # share of beta at a number of warm-ups since the start
    "constant": lambda progress: 1.0,
    "linear": lambda progress: min(1.0, progress),
    "cosine": lambda progress: 0.5 * (1 - math.cos(math.pi * min(1.0, progress))),
    "cyclical": lambda progress: min(1.0, 2 * (progress % 1)),  # Fu et al. 2019, arXiv:1903.10145
}


class ObjectiveOutput(NamedTuple):
    """What an objective makes of a batch."""

    loss: Tensor  # scalar, for its gradient alone
    elbo: ELBO  # for the report
    bound: Tensor  # (B,), in nats: what the objective raises, at beta = 1; for the report and the choice of a model


class Objective(Component, abc.ABC, group="objective"):
    """What stage vae minimizes, and which bound it reports."""

    BOUND: ClassVar[str]  # the tag of the reported bound: val/BOUND chooses the best checkpoint
    num_samples: int = 1  # latents of each image that are decoded in a step

    @dataclass
    class Config(ComponentConfig):
        beta: float = (
            1.0  # weight of log p(z) - log q(z|x) after the warm-up; 1 is the bound itself
        )
        beta_schedule: str = "linear"  # constant, linear, cosine, or cyclical (each cycle: half a rise, half at beta)
        beta_warmup_epochs: float = (
            1.0  # epochs of its rise from 0; of one whole cycle, if cyclical; constant: unused
        )

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.beta >= 0, "beta", "at least 0", self.beta)
            known = ", ".join(SCHEDULES)
            require(
                self.beta_schedule in SCHEDULES,
                "beta_schedule",
                f"one of {known}",
                self.beta_schedule,
            )
            require(
                self.beta_warmup_epochs >= 0,
                "beta_warmup_epochs",
                "at least 0",
                self.beta_warmup_epochs,
            )

        def build(self) -> Objective:
            built: Objective = self.component(self)
            return built

        @property
        def bound(self) -> str:
            """Tag of the bound that is reported."""
            tag: str = self.component.BOUND
            return tag

        def beta_at(self, epoch: float) -> float:
            """Weight of the KL at a point of the training, in epochs (fractions count)."""
            if self.beta_warmup_epochs == 0:
                return self.beta
            return self.beta * SCHEDULES[self.beta_schedule](epoch / self.beta_warmup_epochs)

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        """Loss and report for images in [0, 1], (B, C, H, W)."""


class ElboObjective(Objective):
    """The ELBO from one sample, its KL weighted by beta, and free of charge below `free_bits` in each dimension.

    Source: Kingma & Welling 2014, arXiv:1312.6114; beta: Higgins et al. 2017; free bits: Kingma et al. 2016,
    arXiv:1606.04934, eq. 15.
    """

    BOUND = "elbo"

    @dataclass
    class Config(Objective.Config):
        name: str = "elbo"
        free_bits: float = 0.0  # nats per latent dimension, averaged over the batch, below which the KL costs nothing

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.free_bits >= 0, "free_bits", "at least 0", self.free_bits)

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior, prior = vae.encode(target), vae.latent_prior()
        terms = elbo(vae, target, posterior, prior)
        cost = terms.kl.mean()
        if self.config.free_bits > 0:
            dimensions = kl_by_dimension(posterior, prior)
            if dimensions is None:  # the latents share what is free
                cost = at_least(cost, self.config.free_bits * vae.prior.latent_dim)
            else:
                cost = at_least(dimensions.mean(0), self.config.free_bits).sum()
        return ObjectiveOutput(beta * cost - terms.log_likelihood.mean(), terms, terms.value)


def at_least(mean: Tensor, free: float) -> Tensor:
    """A mean over the batch, or what is free where this is more; in training by the mean over all devices' images."""
    whole = all_reduce_mean(mean.detach()) if mean.requires_grad else mean
    return torch.where(whole > free, mean, free)


class ImportanceWeighted(Objective, abc.ABC):
    """The importance-weighted bound with K samples. Source: Burda et al. 2016, arXiv:1509.00519, eq. 8."""

    BOUND = "iw_bound"

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

    @staticmethod
    def report(samples: WeightedSamples, loss: Tensor) -> ObjectiveOutput:
        """The loss, with the ELBO and the bound that these samples estimate."""
        kl = (samples.log_posterior - samples.log_prior).mean(0)
        return ObjectiveOutput(
            loss, ELBO(samples.log_likelihood.mean(0), kl), log_mean_exp(samples.log_weights)
        )


class IwaeObjective(ImportanceWeighted):
    """The bound's own gradient."""

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "iwae"

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior, prior = vae.encode(target), vae.latent_prior()
        samples = weighted_samples(vae, target, posterior, prior, self.num_samples)
        log_ratio = samples.log_prior - samples.log_posterior
        return self.report(samples, -log_mean_exp(samples.log_likelihood + beta * log_ratio).mean())


class DregObjective(ImportanceWeighted):
    """The bound's doubly reparameterized gradient, whose signal for the encoder does not drown in noise as K grows.

    Source: Tucker et al. 2019, arXiv:1810.04152, eq. 8.
    """

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "dreg"

    def __call__(self, vae: VAE, x: Tensor, beta: float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        features = full_precision(vae.encoder(target))
        z, _ = draw(vae.posterior(features), self.num_samples)
        constants = {
            name: parameter.detach() for name, parameter in vae.posterior.named_parameters()
        }
        posterior = functional_call(
            vae.posterior, constants, (features.detach(),)
        )  # gradients flow through z alone
        prior = vae.latent_prior()
        samples = WeightedSamples(
            z, log_likelihood(vae, z, target), log_prob(prior, z), log_prob(posterior, z)
        )
        log_weights = samples.log_likelihood + beta * (samples.log_prior - samples.log_posterior)
        weights = log_weights.detach().softmax(0)
        if z.requires_grad:  # with beta = 1 the encoder's gradient counts each weight twice
            z.register_hook(lambda gradient: (1 - beta + beta * weights).unsqueeze(-1) * gradient)
        return self.report(samples, -(weights * log_weights).sum(0).mean())
