"""LightningModule of stage gan, with manual optimization of two networks.

Each iteration uses one batch of real images. The discriminator takes `discriminator_steps` steps,
each on new fake images. Then, after the discriminator warm-up, the generator takes one step on the
last fake images, with the discriminator frozen. The discriminator always sees augmented images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributions import Distribution

from vaegan.data.datamodule import Batch
from vaegan.gan import steps
from vaegan.gan.augmentation import AdaptiveProbability
from vaegan.gan.components import GANComponents, TrainingProgress
from vaegan.gan.ema import GeneratorEMA
from vaegan.gan.evaluation_module import ScoringModule
from vaegan.gan.generator import Generator
from vaegan.gan.steps import DiscriminatorTerms
from vaegan.gan.training_config import GANTraining
from vaegan.gan.warm_start import named_layers
from vaegan.gan.warmup import DiscriminatorWarmup
from vaegan.metrics.sample_scores import NonFiniteError
from vaegan.metrics.scorer import Scorer
from vaegan.runtime.seeding import drawing_noise
from vaegan.training.flops import FlopCounts
from vaegan.training.gradients import drop_gradients, is_logged, optimizer_step
from vaegan.vae.model import in_full_precision, to_full_precision


class GANModule(ScoringModule):
    """Train a generator and a discriminator against each other.

    Args:
        components: Networks, losses and augmentation.
        scorer: Scorer of generated images.
        training: Training config whose nulls were filled in by `resolve_data_defaults`.
        header: Description stored in the checkpoint (`vaegan.checkpoints.checkpoint.header`).
    """

    def __init__(
        self,
        components: GANComponents,
        scorer: Scorer,
        training: GANTraining,
        header: dict[str, Any],
    ) -> None:
        super().__init__(scorer)
        self.automatic_optimization = False
        logits = ("train/d_real", "train/d_fake")
        self.progress_bar_tags = ("train/d_loss", *logits, f"val/{scorer.monitor}")
        self.training_config = training
        self.header = header
        self.loss = components.loss
        self.penalty = components.penalty
        self.augmentation = components.augmentation
        self.augment_probability = AdaptiveProbability(components.augmentation.config)

        self.vae = components.vae.requires_grad_(False).eval()
        self.aggregate = components.latents.aggregate
        self.generator = components.generator.to(memory_format=torch.channels_last)
        self.generator.likelihood.requires_grad_(False)  # not trained by the GAN
        self.discriminator = components.discriminator.to(memory_format=torch.channels_last)
        batch_size = training.loader.batch_size
        self.ema = GeneratorEMA(
            self.generator, training.ema_half_life, training.ema_rampup, batch_size
        )
        assert training.discriminator_warmup is not None, "call resolve_data_defaults first"
        self.warmup = DiscriminatorWarmup(
            training.discriminator_warmup, training.discriminator_warmup_accuracy
        )
        self.progress = TrainingProgress()
        self.flops = FlopCounts()
        self.trained_networks = (self.generator.decoder, self.discriminator)
        self.terms: dict[str, Tensor] = {}  # loss terms of the current step, for NonFiniteGuard
        self.latents: dict[torch.device, Distribution] = {}  # by the device of the module

    @property
    def generator_ema(self) -> Generator:
        """EMA of the generator, which is evaluated, sampled and saved."""
        return self.ema.module

    def on_fit_start(self) -> None:
        self.latents.clear()  # with several devices, the buffers are now those of the first rank

    @torch.no_grad()
    @in_full_precision()
    def latent_distribution(self) -> Distribution:
        if self.device not in self.latents:  # built once, because the VAE is frozen
            prior = self.vae.latent_prior if self.aggregate is None else self.aggregate
            self.latents[self.device] = prior()
        return self.latents[self.device]

    def generate(self, z: Tensor) -> Tensor:
        return self.generator_ema(z)

    def discriminator_logits(self, images: Tensor) -> Tensor:
        """Augment images (B, C, H, W) and return their logits, (B,), at least float32."""
        with drawing_noise():
            augmented = self.augmentation(images, self.augment_probability())
        return to_full_precision(self.discriminator(augmented))

    def configure_optimizers(self) -> Any:
        config = self.training_config
        num_batches = int(self.trainer.estimated_stepping_batches)
        self.num_discriminator_updates = num_batches * config.discriminator_steps

        def num_generator_updates() -> int:  # final only after the warm-up
            return num_batches - math.ceil(self.warmup.num_images / config.loader.batch_size)

        g_optimizer, g_schedule = config.generator_optimizer.build(
            self.generator.decoder.parameters(), num_generator_updates
        )
        d_optimizer, d_schedule = config.discriminator_optimizer.build(
            self.discriminator.parameters(), lambda: self.num_discriminator_updates
        )
        schedules = [
            {"scheduler": g_schedule, "name": "train/g_lr"},
            {"scheduler": d_schedule, "name": "train/d_lr"},
        ]
        return [g_optimizer, d_optimizer], schedules

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, _ = batch
        config = self.training_config
        g_optimizer, d_optimizer = self.optimizers()  # type: ignore[attr-defined]
        g_schedule, d_schedule = self.lr_schedulers()  # type: ignore[misc]
        logged: dict[str, Tensor] = {}
        fraction = self.progress.discriminator_updates / self.num_discriminator_updates
        self.generator.saturation_logit = config.saturation_logit_at(fraction)
        for step in range(config.discriminator_steps):
            is_last = step == config.discriminator_steps - 1
            z = self.sample_latents(len(real))
            fakes = self.generate_fakes(z, keep_graph=is_last and self.warmup.is_finished)
            counts_batch = is_last and not self.warmup.is_finished
            logged |= self.step_discriminator(d_optimizer, real, fakes, counts_batch)
            d_schedule.step()

        if self.warmup.is_finished:
            logged |= self.step_generator(g_optimizer, real, z, fakes)
            g_schedule.step()
            self.ema.update(self.generator, self.progress.generator_updates - 1)

        self.progress.images += config.loader.batch_size
        self.warmup.finish_if_due(self.progress.images)
        if is_logged(self.trainer):
            self.log_dict(logged, sync_dist=True)

    def split_batch(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Split a batch into `gradient_accumulation` micro-batches along its first dimension."""
        return batch.chunk(self.training_config.gradient_accumulation)

    def generate_fakes(self, z: Tensor, keep_graph: bool) -> list[Tensor]:
        """Return the fake images of each micro-batch of latents z (B, latent_dim).

        They keep their autograd graph if `keep_graph` and there is only one micro-batch.
        """
        micro_z = self.split_batch(z)
        with torch.set_grad_enabled(keep_graph and len(micro_z) == 1), self.count_flops("fakes"):
            return [self.generator(part) for part in micro_z]

    def step_discriminator(
        self,
        optimizer: LightningOptimizer,
        real: Tensor,
        fakes: list[Tensor],
        counts_batch: bool,
    ) -> dict[str, Tensor]:
        """Update the discriminator on real and fake images; return the values to log by tag."""
        num_updates = self.progress.discriminator_updates
        fraction = num_updates / self.num_discriminator_updates
        penalty_weight = self.penalty.weight(num_updates, fraction)
        optimizer.zero_grad()
        all_terms = []
        with self.count_flops(f"discriminator, penalty={penalty_weight > 0}"):
            for x, fake in zip(self.split_batch(real), fakes, strict=True):
                fake = fake.detach()
                terms = steps.discriminator_terms(
                    self.discriminator_logits, x, fake, self.loss, self.penalty, penalty_weight
                )
                self.manual_backward(terms.loss / len(fakes))
                all_terms.append(terms)
        terms = steps.join_terms(all_terms)
        self.terms = {"train/d_loss": terms.adversarial, "the gradient penalty": terms.penalty}
        grad_norm = self.apply_step(optimizer, self.discriminator, "d", counts_batch)
        self.update_adaptive_settings(terms)
        self.progress.discriminator_updates += 1
        return grad_norm | terms.metrics() if is_logged(self.trainer) else {}

    def update_adaptive_settings(self, terms: DiscriminatorTerms) -> None:
        """Adapt the augmentation probability and the warm-up to the discriminator's logits."""
        config = self.training_config
        reduce = self.trainer.strategy.reduce
        if self.augment_probability.is_adaptive:
            overfitting_r = terms.overfitting_r(self.loss.IS_RELATIVISTIC)
            overfitting_r = reduce(overfitting_r, reduce_op="mean")
            num_images = config.loader.batch_size / config.discriminator_steps
            self.augment_probability.update(overfitting_r, num_images)
        if self.warmup.target_accuracy is not None and not self.warmup.is_finished:
            self.warmup.update_accuracy(float(reduce(terms.accuracy, reduce_op="mean")))

    def step_generator(
        self, optimizer: LightningOptimizer, real: Tensor, z: Tensor, fakes: list[Tensor]
    ) -> dict[str, Tensor]:
        """Update the generator with a frozen discriminator; return the values to log by tag."""
        config = self.training_config.warm_start
        num_images = self.progress.generator_updates * self.training_config.loader.batch_size
        reconstruction_weight = config.reconstruction_weight_at(num_images)
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            all_terms = []
            micro_batches = zip(self.split_batch(real), self.split_batch(z), fakes, strict=True)
            with self.count_flops(f"generator, reconstruction={reconstruction_weight > 0}"):
                for x, micro_z, micro_fake in micro_batches:
                    # With several micro-batches the fakes have no autograd graph: regenerate them.
                    fake = micro_fake if len(fakes) == 1 else self.generator(micro_z)
                    terms = steps.generator_terms(
                        self.discriminator_logits,
                        fake=fake,
                        real=x,
                        loss=self.loss,
                        vae=self.vae,
                        generator=self.generator,
                        reconstruction_weight=reconstruction_weight,
                    )
                    self.manual_backward(terms.loss / len(fakes))
                    all_terms.append(terms)
            if num_images < config.freeze_images:
                decoder_layers = list(named_layers(self.generator.decoder).values())
                drop_gradients(decoder_layers[: config.freeze_layers])
            terms = steps.join_terms(all_terms)
            self.terms = {
                "train/g_loss": terms.adversarial,
                "the reconstruction loss": terms.reconstruction,
            }
            grad_norm = self.apply_step(optimizer, self.generator.decoder, "g", counts_batch=True)
        self.progress.generator_updates += 1
        return {"train/g_loss": terms.adversarial} | grad_norm

    def apply_step(
        self, optimizer: LightningOptimizer, network: nn.Module, prefix: str, counts_batch: bool
    ) -> dict[str, Tensor]:
        """Update the weights; return the gradient norm by tag if this step is logged."""
        max_norm = self.training_config.gradient_clip
        norm = optimizer_step(self.trainer, optimizer, network, max_norm, counts_batch)
        return {} if norm is None else {f"train/{prefix}_grad_norm": norm}

    @contextmanager
    def count_flops(self, key: str) -> Iterator[None]:
        """Add the block's FLOPs to `progress.flops`; blocks with equal keys must cost the same."""
        with self.flops.counted(key):
            yield
        self.progress.flops += self.flops.counts[key] * self.trainer.world_size

    def on_validation_epoch_end(self) -> None:
        values = {f"val/{name}": value for name, value in self.compute_scores().items()}
        values["val/images"] = float(self.progress.images)
        values["val/compute"] = self.progress.flops / 1e15
        self.log_dict(values)
        self.log("val/generator_updates", float(self.progress.generator_updates))

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.compute_scores().items()})

    def compute_scores(self) -> dict[str, float]:
        """Return the scores of the generated images by metric name.

        Raises:
            ValueError: The features of the generated images are not finite.
        """
        try:
            return self.scorer.compute()
        except NonFiniteError as error:
            raise ValueError(
                f"after {self.progress.images} images: {error}. Training has diverged; lower "
                "generator_optimizer.lr and discriminator_optimizer.lr. The checkpoints are intact"
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaegan"] = self.header
        checkpoint["gan_progress"] = asdict(self.progress)
        checkpoint["gan_warmup"] = asdict(self.warmup)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.progress = TrainingProgress(**checkpoint["gan_progress"])
        self.warmup = DiscriminatorWarmup(**checkpoint["gan_warmup"])
        for name, value in self.vae.state_dict().items():  # the VAE defines the features
            if not torch.equal(value.cpu(), checkpoint["state_dict"][f"vae.{name}"].cpu()):
                raise ValueError(
                    "vae_ckpt is not the VAE that this GAN was started from; set it to that VAE"
                )
