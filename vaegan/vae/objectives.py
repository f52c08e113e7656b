"""Training objectives of a VAE.

    elbo    loss = beta KL - E_q[log p(x|z)], optionally with free bits
    iwae    loss = -L_K with its reparameterized gradient
    dreg    loss = -L_K with its doubly reparameterized gradient

Losses are means over the batch in nats per image (`vaegan.vae.bounds`). beta and free bits affect
only the loss: the reported bounds always have beta = 1 and no free bits. To add an objective, write
one class here: it is then available as `objective=NAME`.
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
from vaegan.vae.model import VAE, to_full_precision

# Factor on beta as a function of the time since the start of training, in units of the warm-up.
BETA_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: min(1.0, progress),
    "cosine": lambda progress: 0.5 * (1 - math.cos(math.pi * min(1.0, progress))),
    # Fu et al. 2019, arXiv:1903.10145, with half of each cycle rising
    "cyclical": lambda progress: min(1.0, 2 * (progress % 1)),
}


class ObjectiveOutput(NamedTuple):
    """Loss of a batch and its reported bounds, which have beta = 1."""

    loss: Tensor  # mean over the batch, (); that of DReG is a surrogate with the right gradient
    elbo: ELBO  # terms of the ELBO, (B,), in nats per image
    bound: Tensor  # bound on log p(x), (B,), in nats per image; its mean selects the checkpoint


class Objective(Component, abc.ABC, group="objective"):
    """Training loss of a VAE, and the bound on log p(x) that is reported.

    Attributes:
        bound_name: Name of the reported bound; `val/<bound_name>` selects the best checkpoint.
        num_samples: Number of latents per image that are decoded in a step.
    """

    bound_name: ClassVar[str]
    num_samples: int = 1

    @dataclass
    class Config(ComponentConfig):
        """Settings of an objective; `build()` constructs it."""

        # weight of the KL term, log q(z|x) - log p(z), in the loss after the warm-up, >= 0; 1 gives
        # the bound itself
        beta: float = 1.0
        # warm-up of beta from 0: constant (no warm-up), linear, cosine, or cyclical (repeated: half
        # of each cycle rising, half at beta)
        beta_schedule: str = "linear"
        # length of the warm-up, or of one cycle, in epochs, >= 0; 0: no warm-up; null: 1, or all of
        # training if that is shorter; unused by constant
        beta_warmup_epochs: float | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.beta >= 0, "beta", "at least 0", self.beta)
            is_known = self.beta_schedule in BETA_SCHEDULES
            expected = f"one of {', '.join(BETA_SCHEDULES)}"
            require(is_known, "beta_schedule", expected, self.beta_schedule)
            epochs = self.beta_warmup_epochs
            is_valid = epochs is None or epochs >= 0
            require(is_valid, "beta_warmup_epochs", "at least 0, or null", epochs)

        @property
        def bound_name(self) -> str:
            """Name of the reported bound."""
            return self.component.bound_name

        def beta_at(self, epoch: float) -> float:
            """Return the weight of the KL after a number of epochs, which may be fractional."""
            warmup_epochs = 1.0 if self.beta_warmup_epochs is None else self.beta_warmup_epochs
            if warmup_epochs == 0:
                return self.beta
            schedule = BETA_SCHEDULES[self.beta_schedule]
            return self.beta * schedule(epoch / warmup_epochs)

    def __init__(self, config: Any) -> None:
        self.config = config

    @abc.abstractmethod
    def __call__(self, vae: VAE, x: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        """Compute the loss and the bounds of a batch.

        Args:
            vae: The model.
            x: Images in [0, 1], (B, C, H, W).
            beta: Weight of the KL in the loss.
        """


class ElboObjective(Objective):
    """Negative ELBO from one posterior sample: loss = mean_x (beta KL - log p(x|z)).

    With free bits f > 0 the KL is replaced by sum_j max(mean_x KL_j, f) over latent dimensions j.
    If the KL does not split into dimensions, it is replaced by max(mean_x KL, latent_dim f).

    Source: Kingma & Welling 2014, arXiv:1312.6114, eq. 3; beta: Higgins et al. 2017, "beta-VAE";
    free bits: Kingma et al. 2016, arXiv:1606.04934, eq. 15.
    """

    bound_name = "elbo"

    @dataclass
    class Config(Objective.Config):
        name: str = "elbo"
        # KL per latent dimension that is not penalized, in nats, >= 0; 0: no free bits
        free_bits: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.free_bits >= 0, "free_bits", "at least 0", self.free_bits)

    def __call__(self, vae: VAE, x: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior = vae.encode(target)
        prior = vae.latent_prior()
        terms = elbo(vae, target, posterior, prior)
        kl = terms.kl.mean()
        free_bits = self.config.free_bits
        if free_bits > 0:
            dimensions = kl_by_dimension(posterior, prior)
            if dimensions is None:  # all dimensions share one budget
                kl = clamp_to_free_bits(kl, free_bits * vae.prior.latent_dim)
            else:
                kl = clamp_to_free_bits(dimensions.mean(0), free_bits).sum()
        loss = beta * kl - terms.log_likelihood.mean()
        return ObjectiveOutput(loss, terms, terms.value)


def clamp_to_free_bits(kl: Tensor, free_bits: float) -> Tensor:
    """Return max(kl, free_bits) of a batch mean; the gradient is 0 where free_bits is larger.

    In training, the comparison uses the mean over all devices. In validation the devices may have
    different numbers of batches, so there is no reduction over devices.

    Args:
        kl: Mean KL of the batch, () or (latent_dim,), in nats.
        free_bits: Lower limit in nats.
    """
    global_kl = all_reduce_mean(kl.detach()) if kl.requires_grad else kl
    return torch.where(global_kl > free_bits, kl, free_bits)


class ImportanceWeighted(Objective, abc.ABC):
    """Importance-weighted bound L_K = E_q log (1/K sum_k w_k) with K posterior samples.

    Source: Burda et al. 2016, arXiv:1509.00519, eq. 8.
    """

    bound_name = "iw_bound"

    @dataclass
    class Config(Objective.Config):
        num_samples: int = 50  # posterior samples K per image and step, >= 1
        # warm-up of beta from 0: constant (no warm-up), linear, cosine, or cyclical (repeated: half
        # of each cycle rising, half at beta)
        beta_schedule: str = "constant"

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_samples = config.num_samples


def beta_log_weights(samples: WeightedSamples, beta: Tensor | float) -> Tensor:
    """Return log p(x|z_k) + beta (log p(z_k) - log q(z_k|x)), (K, B); log w_k for beta = 1."""
    return samples.log_likelihood + beta * (samples.log_prior - samples.log_posterior)


def importance_weighted_output(samples: WeightedSamples, loss: Tensor) -> ObjectiveOutput:
    """Combine the loss with the estimates of the ELBO and of L_K from the same samples."""
    kl = (samples.log_posterior - samples.log_prior).mean(0)
    terms = ELBO(samples.log_likelihood.mean(0), kl)
    return ObjectiveOutput(loss, terms, log_mean_exp(samples.log_weights))


class IwaeObjective(ImportanceWeighted):
    """Importance-weighted autoencoder (IWAE): loss = -mean_x log (1/K sum_k w_k)."""

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "iwae"

    def __call__(self, vae: VAE, x: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        posterior = vae.encode(target)
        prior = vae.latent_prior()
        samples = weighted_samples(vae, target, posterior, prior, self.num_samples)
        loss = -log_mean_exp(beta_log_weights(samples, beta)).mean()
        return importance_weighted_output(samples, loss)


class DregObjective(ImportanceWeighted):
    """Importance-weighted bound with the doubly reparameterized gradient (DReG) for the encoder.

    With normalized weights v_k = w_k / sum_j w_j, the gradient with respect to the encoder is
    E sum_k v_k^2 (d log w_k / d z_k) (d z_k / d encoder). Its signal-to-noise ratio does not
    decrease with K, unlike that of `iwae`. The gradients of decoder, likelihood and prior are those
    of L_K.

    Source: Tucker et al. 2019, arXiv:1810.04152, eq. 8.
    """

    @dataclass
    class Config(ImportanceWeighted.Config):
        name: str = "dreg"

    def __call__(self, vae: VAE, x: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        target = vae.likelihood.target(x)
        features = to_full_precision(vae.encoder(target))
        z, _ = rsample_and_log_prob(vae.posterior(features), self.num_samples)
        # q(z|x) with constant parameters, so that its gradient flows only through z
        constants = {name: value.detach() for name, value in vae.posterior.named_parameters()}
        posterior = functional_call(vae.posterior, constants, (features.detach(),))
        prior = vae.latent_prior()
        samples = WeightedSamples(
            z, log_likelihood(vae, z, target), log_prob(prior, z), log_prob(posterior, z)
        )
        log_weights = beta_log_weights(samples, beta)
        weights = log_weights.detach().softmax(0)
        # The loss contributes one factor v_k to the gradient of z_k. This hook contributes the
        # other, 1 - beta + beta v_k, because beta also multiplies the score term log q(z_k|x).
        if z.requires_grad:
            factors = (1 - beta + beta * weights).unsqueeze(-1)
            z.register_hook(lambda gradient: factors * gradient)
        return importance_weighted_output(samples, -(weights * log_weights).sum(0).mean())
