"""Terms of a discriminator step and of a generator step, as functions of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vaegan.gan.generator import Generator
from vaegan.gan.losses import AdversarialLoss, Critic
from vaegan.gan.penalties import GradientPenalty
from vaegan.vae.model import VAE, full_precision


class DiscriminatorTerms(NamedTuple):
    """Scalars of a discriminator step, each a mean over the batch."""

    adversarial: Tensor
    penalty: Tensor  # weighted
    real_logit: Tensor
    fake_logit: Tensor
    accuracy: Tensor  # share of pairs with the real logit above the fake one
    # r_t = E[sign D(x)] of ADA, arXiv:2006.06676, eq. 1; E[sign(D(x) - D(g))] if relativistic
    overfitting_r: Tensor

    @property
    def loss(self) -> Tensor:
        """The discriminator minimizes this scalar."""
        return self.adversarial + self.penalty


class GeneratorTerms(NamedTuple):
    """Scalars of a generator step, each a mean over the batch."""

    adversarial: Tensor
    reconstruction: Tensor  # weighted

    @property
    def loss(self) -> Tensor:
        """The generator minimizes this scalar."""
        return self.adversarial + self.reconstruction


Terms = TypeVar("Terms", DiscriminatorTerms, GeneratorTerms)


def discriminator_terms(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    loss: AdversarialLoss,
    penalty: GradientPenalty,
    penalty_weight: float,
) -> DiscriminatorTerms:
    """Return the terms of a discriminator step on real and detached fake images, (B, C, H, W)."""
    real_logits, fake_logits = critic(torch.cat([real, fake])).chunk(2)
    adversarial = loss.discriminator(real_logits, fake_logits).mean()
    weighted_penalty = torch.zeros_like(adversarial)
    if penalty_weight:
        weighted_penalty = penalty_weight * penalty(critic, real, fake).mean()
    margin = real_logits - fake_logits if loss.IS_RELATIVISTIC else real_logits
    return DiscriminatorTerms(
        adversarial=adversarial,
        penalty=weighted_penalty,
        real_logit=real_logits.mean(),
        fake_logit=fake_logits.mean(),
        accuracy=(real_logits > fake_logits).float().mean(),
        overfitting_r=margin.sign().mean(),
    )


def generator_terms(
    critic: Critic,
    fake: Tensor,
    real: Tensor,
    loss: AdversarialLoss,
    vae: VAE,
    generator: Generator,
    reconstruction_weight: float,
) -> GeneratorTerms:
    """Return the terms of a generator step on fake images with their graph, (B, C, H, W)."""
    fake_logits = critic(fake)
    real_logits = critic(real) if loss.IS_RELATIVISTIC else torch.zeros_like(fake_logits)
    adversarial = loss.generator(fake_logits, real_logits).mean()
    reconstruction = torch.zeros_like(adversarial)
    if reconstruction_weight:
        reconstruction = reconstruction_weight * reconstruction_loss(vae, generator, real)
    return GeneratorTerms(adversarial, reconstruction)


def mean_terms(parts: Sequence[Terms]) -> Terms:
    """Return the mean of each term over the parts of a batch, without gradient."""
    means = {}
    for name in parts[0]._fields:
        values = [getattr(part, name).detach() for part in parts]
        means[name] = values[0] if len(values) == 1 else torch.stack(values).mean()
    return type(parts[0])(**means)


def reconstruction_loss(vae: VAE, generator: Generator, images: Tensor) -> Tensor:
    """Return -log p(x|z) in nats per dimension, with z ~ q(z|x) of the VAE and p the generator's.

    Args:
        vae: Its encoder gives the latents, without gradient.
        generator: Its decoder and likelihood give p(x|z).
        images: Real images in [0, 1], (B, C, H, W).

    Source: Larsen et al. 2016, arXiv:1512.09300, with the likelihood of pixels.
    """
    with torch.no_grad():
        target = vae.likelihood.target(images)
        z = vae.encode(target).sample()
    likelihood = generator.likelihood(full_precision(generator.decoder(z)))
    return -likelihood.log_prob(target).mean() / images[0].numel()
