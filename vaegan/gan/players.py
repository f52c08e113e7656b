"""The generator and the discriminator of a GAN, and the gradients of their losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaegan.gan import steps
from vaegan.gan.augmentation import AdaptiveProbability
from vaegan.gan.components import GANComponents
from vaegan.gan.evaluation_module import ScoringModule
from vaegan.gan.reconstruction import ReconstructionWeights, reconstruction_loss
from vaegan.gan.steps import DiscriminatorTerms, Fakes, GeneratorTerms, StepVariant
from vaegan.metrics.scorer import Scorer
from vaegan.runtime.seeding import drawing_noise
from vaegan.training.step_graphs import StepGraphs
from vaegan.vae.model import in_full_precision, to_full_precision


class PlayersModule(ScoringModule):
    """Compute the gradients of a generator and of a discriminator.

    Args:
        components: Networks, losses, augmentation and emphasis.
        scorer: Scorer of generated images.
        num_micro_batches: Parts of a batch that are computed one after another.

    Attributes:
        variant: Variant of the current step.
        step_graphs: CUDA graphs of the steps, set by `StepOptions`; None: steps are executed.
    """

    variant: StepVariant

    def __init__(self, components: GANComponents, scorer: Scorer, num_micro_batches: int) -> None:
        super().__init__(scorer)
        self.num_micro_batches = num_micro_batches
        self.loss = components.loss
        self.penalty = components.penalty
        self.augmentation = components.augmentation
        self.emphasis = components.emphasis
        self.augment_probability = AdaptiveProbability(components.augmentation.config)
        self.vae = components.vae.requires_grad_(False).eval()
        self.aggregate = components.latents.aggregate
        self.generator = components.generator.to(memory_format=torch.channels_last)
        self.generator.likelihood.requires_grad_(False)  # not trained by the GAN
        self.discriminator = components.discriminator.to(memory_format=torch.channels_last)
        self.latents: dict[torch.device, Distribution] = {}  # by the device of the module
        self.step_graphs: StepGraphs | None = None

    def on_fit_start(self) -> None:
        self.latents.clear()  # with several devices, the buffers are now those of the first rank

    @torch.no_grad()
    @in_full_precision()
    def latent_distribution(self) -> Distribution:
        if self.device not in self.latents:  # built once, because the VAE is frozen
            prior = self.vae.latent_prior if self.aggregate is None else self.aggregate
            self.latents[self.device] = prior()
        return self.latents[self.device]

    def discriminator_logits(self, images: Tensor) -> Tensor:
        """Augment and emphasize images (B, C, H, W); return logits, (B,), at least float32."""
        with drawing_noise():
            augmented = self.augmentation(images, self.augment_probability())
        return to_full_precision(self.discriminator(self.emphasis(augmented)))

    def hidden_units(self, images: Tensor) -> list[Tensor]:
        """Return hidden units of images (B, C, H, W) with emphasis, at least float32."""
        units = self.discriminator.hidden_units(self.emphasis(images))
        return [to_full_precision(layer) for layer in units]

    def compute_gradients(
        self,
        player: str,
        function: Callable[..., Any],
        network: nn.Module,
        *inputs: Any,
        fallback: Callable[..., Any] | None = None,
    ) -> Any:
        """Return function(*inputs), which sets the gradients of a network (`StepGraphs.run`)."""
        if self.step_graphs is None:
            return function(*inputs)
        key = (player, self.variant.operations())
        parameters = list(network.parameters())
        return self.step_graphs.run(key, function, parameters, *inputs, fallback=fallback)

    @in_full_precision()
    def backward_pass(self, loss: Tensor) -> None:
        """Accumulate gradients outside autocast, which would cast float32 parts to bfloat16."""
        self.manual_backward(loss)

    def split_batch(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Split a batch into micro-batches along its first dimension."""
        return batch.chunk(self.num_micro_batches)

    def generate_fakes(self, num_fakes: int) -> Fakes:
        """Return fake images, with their autograd graph if one micro-batch trains the generator."""
        micro_z = self.split_batch(self.sample_latents(num_fakes))
        keeps_graph = self.variant.trains_generator and len(micro_z) == 1
        with torch.set_grad_enabled(keeps_graph):
            return Fakes(micro_z, [self.generator(z) for z in micro_z])

    def discriminator_gradients(
        self, real: Tensor, penalty_weight: Tensor | float | None
    ) -> tuple[Fakes, DiscriminatorTerms]:
        """Compute the gradients of the discriminator on real images and on new fake images."""
        fakes = self.generate_fakes(len(real))

        def compute_terms(x: Tensor, fake: Tensor) -> DiscriminatorTerms:
            return steps.discriminator_terms(
                self.discriminator_logits, x, fake.detach(), self.loss, self.penalty, penalty_weight
            )

        micro_batches = list(zip(self.split_batch(real), fakes.images, strict=True))
        return fakes, steps.accumulate(compute_terms, micro_batches, self.backward_pass)

    def generator_gradients(
        self,
        fakes: Fakes,
        real: Tensor,
        pixel_weight: Tensor | float | None,
        feature_weight: Tensor | float | None,
    ) -> GeneratorTerms:
        """Compute the gradients of the generator on the fake images of a discriminator step."""
        weights = ReconstructionWeights(pixel_weight, feature_weight)

        def compute_terms(x: Tensor, z: Tensor, fake: Tensor) -> GeneratorTerms:
            return steps.generator_terms(
                self.discriminator_logits,
                # With several micro-batches the fakes have no autograd graph: regenerate them.
                fake=fake if fake.requires_grad else self.generator(z),
                real=x,
                loss=self.loss,
                reconstruction_loss=lambda images: reconstruction_loss(
                    self.vae, self.generator, self.hidden_units, images, weights
                ),
            )

        micro_batches = list(zip(self.split_batch(real), *fakes, strict=True))
        return steps.accumulate(compute_terms, micro_batches, self.backward_pass)
