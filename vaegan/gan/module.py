"""LightningModule of stage gan, with manual optimization of two networks.

Each iteration uses one batch of real images. The discriminator takes `discriminator_steps` steps,
each on new fake images. Then, after the discriminator warm-up, the generator takes one step on the
last fake images, with the discriminator frozen. The discriminator sees images with their emphasis,
and, except in the feature loss, after their augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from statistics import mean
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from vaegan.data.datamodule import Batch
from vaegan.gan.components import GANComponents, TrainingProgress
from vaegan.gan.ema import GeneratorEMA
from vaegan.gan.emphasis import saved_emphasis
from vaegan.gan.evaluation_module import num_test_draws
from vaegan.gan.generator import Generator
from vaegan.gan.players import PlayersModule
from vaegan.gan.steps import DiscriminatorTerms, Fakes, StepVariant
from vaegan.gan.training_config import GANTraining
from vaegan.gan.warm_start import named_layers
from vaegan.gan.warmup import DiscriminatorWarmup
from vaegan.metrics.sample_scores import NonFiniteError
from vaegan.metrics.scorer import Scorer
from vaegan.training.flops import FlopCounts
from vaegan.training.gradients import drop_gradients, is_logged, optimizer_step


class GANModule(PlayersModule):
    """Train a generator and a discriminator against each other.

    Args:
        components: Networks, losses, augmentation and emphasis.
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
        super().__init__(components, scorer, training.gradient_accumulation)
        self.automatic_optimization = False
        logits = ("train/d_real", "train/d_fake")
        self.progress_bar_tags = ("train/d_loss", *logits, f"val/{scorer.monitor}")
        self.training_config = training
        self.header = header
        batch_size = training.loader.images_per_step
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

    @property
    def generator_ema(self) -> Generator:
        """EMA of the generator, which is evaluated, sampled and saved."""
        return self.ema.module

    def generate(self, z: Tensor) -> Tensor:
        return self.generator_ema(z)

    def configure_optimizers(self) -> Any:
        config = self.training_config
        num_batches = int(self.trainer.estimated_stepping_batches)
        self.num_discriminator_updates = num_batches * config.discriminator_steps

        def num_generator_updates() -> int:  # final only after the warm-up
            return num_batches - math.ceil(self.warmup.num_images / config.loader.images_per_step)

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
            self.variant = self.next_variant(trains_generator=is_last and self.warmup.is_finished)
            counts_batch = is_last and not self.warmup.is_finished
            fakes, values = self.step_discriminator(d_optimizer, real, counts_batch)
            logged |= values
            d_schedule.step()

        if self.warmup.is_finished:
            logged |= self.step_generator(g_optimizer, real, fakes)
            g_schedule.step()
            self.ema.update(self.generator, self.progress.generator_updates - 1)

        self.progress.images += config.loader.images_per_step
        self.warmup.finish_if_due(self.progress.images)
        if is_logged(self.trainer):
            self.log_dict(logged, sync_dist=True)

    def next_variant(self, trains_generator: bool) -> StepVariant:
        """Return the variant of the next discriminator step and, if any, the generator step."""
        config = self.training_config
        num_updates = self.progress.discriminator_updates
        fraction = num_updates / self.num_discriminator_updates
        self.generator.saturation_logit = config.saturation_logit_at(fraction)
        num_images = self.progress.generator_updates * config.loader.images_per_step
        return StepVariant(
            trains_generator=trains_generator,
            penalty_weight=self.penalty.weight(num_updates, fraction) or None,
            reconstruction=config.warm_start.reconstruction_weights_at(num_images),
            saturation_logit=self.generator.saturation_logit,
        )

    def step_discriminator(
        self, optimizer: LightningOptimizer, real: Tensor, counts_batch: bool
    ) -> tuple[Fakes, dict[str, Tensor]]:
        """Update the discriminator; return its fake images and the values to log by tag."""
        weight = self.variant.penalty_weight
        optimizer.zero_grad()
        with self.count_flops(f"discriminator, penalty={weight is not None}"):
            fakes, terms = self.compute_gradients(
                "discriminator", self.discriminator_gradients, self.discriminator, real, weight
            )
        self.terms = {"train/d_loss": terms.adversarial, "the gradient penalty": terms.penalty}
        grad_norm = self.apply_step(optimizer, self.discriminator, "d", counts_batch)
        self.update_adaptive_settings(terms)
        self.progress.discriminator_updates += 1
        if not is_logged(self.trainer):
            return fakes, {}
        values = grad_norm | terms.metrics()
        if self.augment_probability.is_adaptive:
            values["train/augment_probability"] = self.augment_probability()
        return fakes, values

    def update_adaptive_settings(self, terms: DiscriminatorTerms) -> None:
        """Adapt the augmentation probability and the warm-up to the discriminator's logits."""
        config = self.training_config
        reduce = self.trainer.strategy.reduce
        if self.augment_probability.is_adaptive:
            overfitting_r = terms.overfitting_r(self.loss.IS_RELATIVISTIC)
            overfitting_r = reduce(overfitting_r, reduce_op="mean")
            num_images = config.loader.images_per_step / config.discriminator_steps
            self.augment_probability.update(overfitting_r, num_images)
        if self.warmup.target_accuracy is not None and not self.warmup.is_finished:
            self.warmup.update_accuracy(float(reduce(terms.accuracy, reduce_op="mean")))

    def step_generator(
        self, optimizer: LightningOptimizer, real: Tensor, fakes: Fakes
    ) -> dict[str, Tensor]:
        """Update the generator with a frozen discriminator; return the values to log by tag."""
        config = self.training_config.warm_start
        decoder = self.generator.decoder
        weights = self.variant.reconstruction
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            with self.count_flops(f"generator, losses={self.variant.reconstruction_losses()}"):
                terms = self.compute_gradients(
                    "generator",
                    lambda *inputs: self.generator_gradients(fakes, *inputs),
                    decoder,
                    real,
                    *weights,
                    fallback=lambda *inputs: self.generator_gradients(fakes.detach(), *inputs),
                )
            batch_size = self.training_config.loader.images_per_step
            num_images = self.progress.generator_updates * batch_size
            if num_images < config.freeze_images:
                drop_gradients(list(named_layers(decoder).values())[: config.freeze_layers])
            self.terms = {
                "train/g_loss": terms.adversarial,
                "the reconstruction loss": terms.reconstruction,
            }
            grad_norm = self.apply_step(optimizer, decoder, "g", counts_batch=True)
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
        """Score further draws of a small split, whose scores depend on the draw, and log means."""
        draws = [self.compute_scores()]
        num_draws = num_test_draws(len(self.scorer.data.splits["test"]))
        for self.draw in range(1, num_draws):
            self.start_scoring("test")
            while len(self.indices_to_score):
                self.generate_to_score(self.scorer.data.loader.eval_batch_size)
            draws.append(self.compute_scores())
        self.draw = 0
        self.log_dict({f"test/{name}": mean(draw[name] for draw in draws) for name in draws[0]})

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
        saved = saved_emphasis(checkpoint["vaegan"]["run"])
        current = saved_emphasis(self.header["run"])
        if saved != current:
            raise ValueError(
                f"the run cannot be resumed: its discriminator was trained with {saved}, but the "
                f"default is now {current}. Start a new GAN from its VAE; best.ckpt is unchanged "
                "and can be used"
            )
        self.progress = TrainingProgress(**checkpoint["gan_progress"])
        self.warmup = DiscriminatorWarmup(**checkpoint["gan_warmup"])
        for name, value in self.vae.state_dict().items():  # the VAE defines the features
            own = checkpoint["state_dict"].get(f"vae.{name}")
            if own is None or not torch.equal(value.cpu(), own.cpu()):
                raise ValueError(
                    "vae_ckpt is not the VAE that this GAN was started from; set it to the "
                    "folder or file that was used then. If that VAE has been trained further "
                    "since, start a new GAN"
                )
