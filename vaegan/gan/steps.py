"""Loss terms of a discriminator step and of a generator step, as functions of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vaegan.gan.generator import Generator
from vaegan.gan.losses import AdversarialLoss, DiscriminatorFn
from vaegan.gan.penalties import GradientPenalty
from vaegan.runtime.seeding import drawing_noise
from vaegan.vae.model import VAE, in_full_precision, to_full_precision


class DiscriminatorTerms(NamedTuple):
    """Loss terms and logits of a discriminator step."""

    adversarial: Tensor  # mean over the batch
    penalty: Tensor  # gradient penalty times its weight, mean over the batch
    real_logits: Tensor  # (B,)
    fake_logits: Tensor  # (B,)

    @property
    def accuracy(self) -> Tensor:
        """Fraction of pairs with real logit > fake logit."""
        return (self.real_logits > self.fake_logits).float().mean()

    def overfitting_r(self, is_relativistic: bool) -> Tensor:
        """Return r_t = E[sign D(x)] of ADA, arXiv:2006.06676, eq. 1.

        For a relativistic loss it is E[sign(D(x) - D(g))].
        """
        margin = self.real_logits - self.fake_logits if is_relativistic else self.real_logits
        return margin.sign().mean()

    def metrics(self) -> dict[str, Tensor]:
        """Return the values to log by tag."""
        return {
            "train/d_loss": self.adversarial,
            "train/d_real": self.real_logits.mean(),
            "train/d_fake": self.fake_logits.mean(),
            "train/d_accuracy": self.accuracy,
        }

    @property
    def loss(self) -> Tensor:
        """Total loss of the discriminator: adversarial loss plus weighted penalty."""
        return self.adversarial + self.penalty


class GeneratorTerms(NamedTuple):
    """Scalar terms of a generator step, each a mean over the batch."""

    adversarial: Tensor
    reconstruction: Tensor  # reconstruction loss times its weight, in nats per dimension

    @property
    def loss(self) -> Tensor:
        """Total loss of the generator: adversarial loss plus weighted reconstruction loss."""
        return self.adversarial + self.reconstruction


class Fakes(NamedTuple):
    """Fake images of a discriminator step and their latents, by micro-batch."""

    latents: Sequence[Tensor]  # (B, latent_dim) each
    images: Sequence[Tensor]  # (B, C, H, W) each, in [0, 1]

    def detach(self) -> Fakes:
        """Return the same images without their autograd graph."""
        return Fakes(self.latents, [image.detach() for image in self.images])


class StepVariant(NamedTuple):
    """Properties in which the steps of a training run differ."""

    trains_generator: bool  # a generator step on the same fake images follows
    penalty_weight: float | None  # None: no gradient penalty
    reconstruction_weight: float | None  # None: no reconstruction loss
    saturation_logit: float  # see `Generator`

    def operations(self) -> tuple[bool | float, ...]:
        """Return the same value for all steps that execute the same operations."""
        has_penalty = self.penalty_weight is not None
        has_reconstruction = self.trains_generator and self.reconstruction_weight is not None
        return self.trains_generator, has_penalty, has_reconstruction, self.saturation_logit


Terms = TypeVar("Terms", DiscriminatorTerms, GeneratorTerms)


def discriminator_terms(
    discriminator: DiscriminatorFn,
    real: Tensor,
    fake: Tensor,
    loss: AdversarialLoss,
    penalty: GradientPenalty,
    penalty_weight: Tensor | float | None,
) -> DiscriminatorTerms:
    """Return the loss terms of a discriminator step.

    Args:
        discriminator: Maps images (B, C, H, W) to logits (B,), including augmentation and emphasis.
        real: Real images in [0, 1], (B, C, H, W).
        fake: Fake images in [0, 1], (B, C, H, W), detached from the generator.
        loss: Adversarial loss.
        penalty: Gradient penalty.
        penalty_weight: Weight of the penalty; None: the penalty is not computed.
    """
    real_logits, fake_logits = discriminator(torch.cat([real, fake])).chunk(2)
    adversarial = loss.discriminator(real_logits, fake_logits).mean()
    weighted_penalty = torch.zeros_like(adversarial)
    if penalty_weight is not None:
        weighted_penalty = penalty_weight * penalty(discriminator, real, fake).mean()
    return DiscriminatorTerms(adversarial, weighted_penalty, real_logits, fake_logits)


def generator_terms(
    discriminator: DiscriminatorFn,
    fake: Tensor,
    real: Tensor,
    loss: AdversarialLoss,
    vae: VAE,
    generator: Generator,
    reconstruction_weight: Tensor | float | None,
) -> GeneratorTerms:
    """Return the loss terms of a generator step.

    Args:
        discriminator: Maps images (B, C, H, W) to logits (B,), including augmentation and emphasis.
        fake: Images from the generator with their autograd graph, (B, C, H, W).
        real: Real images in [0, 1], (B, C, H, W).
        loss: Adversarial loss.
        vae: VAE whose encoder provides the latents of the reconstruction loss.
        generator: Generator that is updated.
        reconstruction_weight: Weight of the reconstruction loss; None: it is not computed.
    """
    fake_logits = discriminator(fake)
    real_logits = discriminator(real) if loss.IS_RELATIVISTIC else torch.zeros_like(fake_logits)
    adversarial = loss.generator(fake_logits, real_logits).mean()
    reconstruction = torch.zeros_like(adversarial)
    if reconstruction_weight is not None:
        reconstruction = reconstruction_weight * reconstruction_loss(vae, generator, real)
    return GeneratorTerms(adversarial, reconstruction)


def accumulate(
    compute_terms: Callable[..., Terms],
    micro_batches: Sequence[Sequence[Tensor]],
    backward: Callable[[Tensor], None],
) -> Terms:
    """Accumulate the gradients of the mean loss over micro-batches of the same size.

    Args:
        compute_terms: Maps the tensors of a micro-batch to its loss terms.
        micro_batches: The tensors of each micro-batch.
        backward: Computes the gradients of a loss.

    Returns:
        Means of the loss terms, and all logits, detached.
    """
    all_terms = []
    for micro_batch in micro_batches:
        terms = compute_terms(*micro_batch)
        backward(terms.loss / len(micro_batches))
        all_terms.append([value.detach() for value in terms])
    joined: list[Tensor] = []
    for values in zip(*all_terms, strict=True):
        if len(values) == 1:
            joined += values
        else:
            joined.append(torch.cat(values) if values[0].dim() else torch.stack(values).mean())
    return type(terms)(*joined)


def reconstruction_loss(vae: VAE, generator: Generator, images: Tensor) -> Tensor:
    """Return the mean of -log p(x|z) / (C H W) over the batch, in nats per dimension.

    z ~ q(z|x) is a sample from the VAE's posterior, without gradient; p(x|z) is the generator's
    likelihood. Source: Larsen et al. 2016, arXiv:1512.09300, but with log p(x|z) of pixels in place
    of discriminator features.

    Args:
        vae: VAE that provides q(z|x).
        generator: Generator that provides p(x|z).
        images: Real images x in [0, 1], (B, C, H, W).
    """
    with torch.no_grad():
        target = vae.likelihood.target(images)
        posterior = vae.encode(target)
        with in_full_precision(), drawing_noise():
            z = posterior.rsample()  # `sample` waits for the GPU; the numbers are the same
    params = to_full_precision(generator.decoder(z))
    with in_full_precision():
        return -generator.likelihood(params).log_prob(target).mean() / images[0].numel()
