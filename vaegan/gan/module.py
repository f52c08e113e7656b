"""LightningModule of stage gan: two optimizers, stepped by hand.

Every iteration takes one batch of real images. The discriminator steps `discriminator_steps` times,
each with fresh fakes; then the generator steps once, on the last of these fakes, with the
discriminator frozen. During the discriminator's warm-up the generator does not step. Both networks
learn from augmented images.
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
from vaegan.gan.warm_start import layers
from vaegan.gan.warmup import DiscriminatorWarmup
from vaegan.metrics.sample_scores import NonFiniteError
from vaegan.metrics.scorer import Scorer
from vaegan.training.flops import FlopCounts
from vaegan.training.gradients import clip_gradients, drop_gradients, gradient_norm, is_logged
from vaegan.vae.model import full_precision


class GANModule(ScoringModule):
    """Trains a generator and a discriminator against each other.

    Args:
        components: Networks, losses and augmentation.
        scorer: Compares generated with real images.
        training: Settings of the training, resolved (`resolve_data_defaults`).
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
        self.training_config = training
        self.header = header
        self.loss = components.loss
        self.penalty = components.penalty
        self.augmentation = components.augmentation
        self.augment_probability = AdaptiveProbability(components.augmentation.config)

        self.vae = components.vae.requires_grad_(False).eval()
        self.aggregate = components.latents.aggregate
        self.generator = components.generator.to(memory_format=torch.channels_last)
        self.generator.likelihood.requires_grad_(False)  # its mean has no parameters to learn
        self.discriminator = components.discriminator.to(memory_format=torch.channels_last)
        batch_size = training.loader.batch_size
        self.ema = GeneratorEMA(
            self.generator, training.ema_half_life, training.ema_rampup, batch_size
        )
        assert training.discriminator_warmup is not None, "resolve_data_defaults sets it"
        self.warmup = DiscriminatorWarmup(
            training.discriminator_warmup, training.discriminator_warmup_accuracy
        )
        self.progress = TrainingProgress()
        self.flops = FlopCounts()
        self.terms: dict[str, Tensor] = {}  # inputs of the next optimizer step, for NonFiniteGuard

    @property
    def generator_ema(self) -> Generator:
        """The EMA of the generator: it is evaluated, sampled and saved."""
        return self.ema.module

    def latent_distribution(self) -> Distribution:
        return self.vae.latent_prior() if self.aggregate is None else self.aggregate()

    def generate(self, z: Tensor) -> Tensor:
        return self.generator_ema(z)

    def critic(self, images: Tensor) -> Tensor:
        """Return logits (B,) of augmented images (B, C, H, W)."""
        augmented = self.augmentation(images, self.augment_probability())
        return full_precision(self.discriminator(augmented))

    def configure_optimizers(self) -> Any:
        config = self.training_config
        num_batches = int(self.trainer.estimated_stepping_batches)
        self.num_discriminator_updates = num_batches * config.discriminator_steps

        def num_generator_updates() -> int:  # known once the warm-up has ended
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

        for step in range(config.discriminator_steps):
            is_last = step == config.discriminator_steps - 1
            z = self.sample_latents(len(real))
            fakes = self.generate_fakes(z, keep_graph=is_last and self.warmup.is_finished)
            counts_step = is_last and not self.warmup.is_finished
            logged |= self.step_discriminator(d_optimizer, real, fakes, counts_step)
            d_schedule.step()

        if self.warmup.is_finished:
            logged |= self.step_generator(g_optimizer, real, z, fakes)
            g_schedule.step()
            self.ema.update_parameters(self.generator)

        self.progress.images += config.loader.batch_size
        self.warmup.advance(self.progress.images)
        if is_logged(self.trainer):
            for tag in ("train/d_loss", "train/d_real", "train/d_fake"):
                self.log(tag, logged.pop(tag), prog_bar=True, sync_dist=True)
            self.log_dict(logged, sync_dist=True)

    def split_batch(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of a batch that are computed one by one (`gradient_accumulation`)."""
        return batch.chunk(self.training_config.gradient_accumulation)

    def generate_fakes(self, z: Tensor, keep_graph: bool) -> list[Tensor]:
        """Return the fakes of each part of a batch of latents.

        If the generator steps on them and the batch is in one part, they keep their graph.
        """
        parts = self.split_batch(z)
        with torch.set_grad_enabled(keep_graph and len(parts) == 1), self.counted("fakes"):
            return [self.generator(part) for part in parts]

    def step_discriminator(
        self, optimizer: LightningOptimizer, real: Tensor, fakes: list[Tensor], counts_step: bool
    ) -> dict[str, Tensor]:
        """Update the discriminator on real images and fakes; return the values to log by tag."""
        num_updates = self.progress.discriminator_updates
        fraction = num_updates / self.num_discriminator_updates
        penalty_weight = self.penalty.weight(num_updates, fraction)
        optimizer.zero_grad()
        parts = []
        with self.counted(f"discriminator {penalty_weight > 0}"):
            for real_part, fake_part in zip(self.split_batch(real), fakes, strict=True):
                fake_part = fake_part.detach()
                part = steps.discriminator_terms(
                    self.critic, real_part, fake_part, self.loss, self.penalty, penalty_weight
                )
                self.manual_backward(part.loss / len(fakes))
                parts.append(part)
        terms = steps.mean_terms(parts)
        self.terms = {"train/d_loss": terms.adversarial, "the gradient penalty": terms.penalty}
        grad_norm = self.apply_step(optimizer, self.discriminator, "d", counts_step)
        self.adapt(terms)
        self.progress.discriminator_updates += 1
        return grad_norm | {
            "train/d_loss": terms.adversarial,
            "train/d_real": terms.real_logit,
            "train/d_fake": terms.fake_logit,
            "train/d_accuracy": terms.accuracy,
        }

    def adapt(self, terms: DiscriminatorTerms) -> None:
        """Adapt the augmentation's probability and the warm-up to the discriminator's logits."""
        config = self.training_config
        reduce = self.trainer.strategy.reduce
        if self.augment_probability.is_adaptive:
            overfitting_r = reduce(terms.overfitting_r, reduce_op="mean")
            num_images = config.loader.batch_size / config.discriminator_steps
            self.augment_probability.update(overfitting_r, num_images)
        if self.warmup.target_accuracy is not None and not self.warmup.is_finished:
            self.warmup.observe(float(reduce(terms.accuracy, reduce_op="mean")))

    def step_generator(
        self, optimizer: LightningOptimizer, real: Tensor, z: Tensor, fakes: list[Tensor]
    ) -> dict[str, Tensor]:
        """Update the generator, with the discriminator frozen; return the values to log by tag."""
        config = self.training_config.warm_start
        num_images = self.progress.generator_updates * self.training_config.loader.batch_size
        reconstruction_weight = config.reconstruction_weight_at(num_images)
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            parts = []
            batch_parts = zip(self.split_batch(real), self.split_batch(z), fakes, strict=True)
            with self.counted(f"generator {reconstruction_weight > 0}"):
                for real_part, z_part, fake_part in batch_parts:
                    # Several parts have no graph: each is generated again.
                    fake = fake_part if len(fakes) == 1 else self.generator(z_part)
                    part = steps.generator_terms(
                        self.critic,
                        fake=fake,
                        real=real_part,
                        loss=self.loss,
                        vae=self.vae,
                        generator=self.generator,
                        reconstruction_weight=reconstruction_weight,
                    )
                    self.manual_backward(part.loss / len(fakes))
                    parts.append(part)
            if num_images < config.freeze_images:
                decoder_layers = list(layers(self.generator.decoder).values())
                drop_gradients(decoder_layers[: config.freeze_layers])
            terms = steps.mean_terms(parts)
            self.terms = {
                "train/g_loss": terms.adversarial,
                "the reconstruction loss": terms.reconstruction,
            }
            grad_norm = self.apply_step(optimizer, self.generator.decoder, "g", counts_step=True)
        self.progress.generator_updates += 1
        return {"train/g_loss": terms.adversarial} | grad_norm

    def apply_step(
        self, optimizer: LightningOptimizer, network: nn.Module, player: str, counts_step: bool
    ) -> dict[str, Tensor]:
        """Update weights; return the gradient's norm by tag on steps that are logged.

        Lightning adds 1 to `global_step` at each optimizer's step; only one per batch should count.
        """
        logged = {}
        if is_logged(self.trainer):
            norm = gradient_norm(network.parameters(), self.trainer)
            logged[f"train/{player}_grad_norm"] = norm
        if self.training_config.gradient_clip is not None:
            max_norm = self.training_config.gradient_clip
            clip_gradients(network.parameters(), max_norm, self.trainer)
        if counts_step:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        return logged

    @contextmanager
    def counted(self, part: str) -> Iterator[None]:
        """Add the floating-point operations inside to the progress; they are equal for a part."""
        with self.flops.counted(part):
            yield
        self.progress.flops += self.flops.counts[part] * self.trainer.world_size

    def on_validation_epoch_end(self) -> None:
        values = {f"val/{name}": value for name, value in self.compute_scores().items()}
        monitored = "val/frechet_distance"
        self.log(monitored, values.pop(monitored), prog_bar=True)
        values["val/images"] = float(self.progress.images)
        values["val/compute"] = self.progress.flops / 1e15
        self.log_dict(values)
        self.log("val/generator_updates", float(self.progress.generator_updates))

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.compute_scores().items()})

    def compute_scores(self) -> dict[str, float]:
        """Return the scores of the generated images by name.

        Raises:
            ValueError: They are not finite: the training has diverged.
        """
        try:
            return self.scorer.compute()
        except NonFiniteError as error:
            raise ValueError(
                f"after {self.progress.images} images: {error}. The training has diverged; lower "
                "generator_optimizer.lr and discriminator_optimizer.lr. The checkpoints are intact"
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaegan"] = self.header
        checkpoint["gan_progress"] = asdict(self.progress)
        checkpoint["gan_warmup"] = asdict(self.warmup)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.progress = TrainingProgress(**checkpoint["gan_progress"])
        self.warmup = DiscriminatorWarmup(**checkpoint["gan_warmup"])
        for name, value in self.vae.state_dict().items():  # scores may look through its encoder
            if not torch.equal(value.cpu(), checkpoint["state_dict"][f"vae.{name}"].cpu()):
                raise ValueError("vae_ckpt is not the VAE that this GAN was started from")
