"""Loss terms of a discriminator step and of a generator step, as functions of images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vaegan.gan.losses import AdversarialLoss, DiscriminatorFn
from vaegan.gan.penalties import GradientPenalty
from vaegan.gan.reconstruction import ReconstructionWeights


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
    reconstruction: Tensor  # weighted sum of the reconstruction losses

    @property
    def loss(self) -> Tensor:
        """Total loss of the generator: adversarial loss plus weighted reconstruction losses."""
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
    reconstruction: ReconstructionWeights
    saturation_logit: float  # see `Generator`

    def operations(self) -> tuple[Hashable, ...]:
        """Return the same value for all steps that execute the same operations."""
        has_penalty = self.penalty_weight is not None
        losses = self.reconstruction_losses() if self.trains_generator else ()
        return self.trains_generator, has_penalty, losses, self.saturation_logit

    def reconstruction_losses(self) -> tuple[str, ...]:
        """Return the names of the reconstruction losses that the generator minimizes."""
        weights = self.reconstruction._asdict()
        return tuple(name for name, weight in weights.items() if weight is not None)


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
    reconstruction_loss: Callable[[Tensor], Tensor],
) -> GeneratorTerms:
    """Return the loss terms of a generator step.

    Args:
        discriminator: Maps images (B, C, H, W) to logits (B,), including augmentation and emphasis.
        fake: Images from the generator with their autograd graph, (B, C, H, W).
        real: Real images in [0, 1], (B, C, H, W).
        loss: Adversarial loss.
        reconstruction_loss: Maps real images to the weighted sum of the reconstruction losses.
    """
    fake_logits = discriminator(fake)
    real_logits = discriminator(real) if loss.IS_RELATIVISTIC else torch.zeros_like(fake_logits)
    adversarial = loss.generator(fake_logits, real_logits).mean()
    return GeneratorTerms(adversarial, reconstruction_loss(real))


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
