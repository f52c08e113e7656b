"""Stage gan: wires generator, discriminator, losses and penalty to Lightning's manual optimization.

Every iteration takes one batch of real images. The discriminator steps `discriminator_steps` times, each with fresh
fakes; then the generator steps once, on the last of these fakes, with the discriminator frozen. During the
discriminator's warm-up the generator does not step at all.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaegan.adversarial import AdversarialLoss, GradientPenalty
from vaegan.data.module import Batch
from vaegan.metrics import encoder_features, frechet_distance
from vaegan.models import VAE, Generator
from vaegan.modules.steps import gradient_norm, is_logged
from vaegan.nets.discriminators import Discriminator
from vaegan.training import GANTraining


class GANModule(pl.LightningModule):
    """Trains a generator and a discriminator against each other.

    Args:
        vae: Gives the latents and the features of the Frechet distance; frozen.
        generator: What is trained; shares no weight with the VAE.
        discriminator: Its opponent.
        loss: What the two minimise.
        penalty: On the discriminator's gradient.
        training: How to train them.
        header: What a checkpoint says of itself (`vaegan.checkpoints.header`).
    """

    def __init__(
        self,
        vae: VAE,
        generator: Generator,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        penalty: GradientPenalty,
        training: GANTraining,
        header: dict[str, Any],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.vae = vae.requires_grad_(False).eval()
        self.generator = generator.to(memory_format=torch.channels_last)
        self.generator.likelihood.requires_grad_(False)  # its mean has no parameters of its own to learn
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        decay = 0.5 ** (training.loader.batch_size / training.average_half_life)
        averaged = AveragedModel(self.generator, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)
        self.moving_average = averaged.requires_grad_(False).eval()
        self.loss, self.penalty = loss, penalty
        self.training_config, self.header = training, header
        self.frechet = frechet_distance(self.vae.posterior.num_features)

    @property
    def average(self) -> Generator:
        """The moving average of the generator: what is scored, drawn and kept."""
        generator = self.moving_average.module
        assert isinstance(generator, Generator)
        return generator

    def configure_optimizers(self) -> Any:
        config, num_batches = self.training_config, int(self.trainer.estimated_stepping_batches)
        g_optimizer, g_schedule = config.generator_optimizer.build(
            self.generator.decoder.parameters(),
            num_batches - config.discriminator_warmup // config.loader.batch_size,
        )
        d_optimizer, d_schedule = config.discriminator_optimizer.build(
            self.discriminator.parameters(), num_batches * config.discriminator_steps
        )
        return [g_optimizer, d_optimizer], [
            {"scheduler": g_schedule, "name": "train/g_lr"},
            {"scheduler": d_schedule, "name": "train/d_lr"},
        ]

    def latents(self, num: int) -> Tensor:
        """Draw latents (num, latent_dim) from the VAE's prior."""
        with torch.no_grad():
            return self.vae.latent_prior().sample((num,))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        real, _ = batch
        g_optimizer, d_optimizer = self.optimizers()  # type: ignore[attr-defined]
        g_schedule, d_schedule = self.lr_schedulers()  # type: ignore[misc]
        iteration = self.current_epoch * self.trainer.num_training_batches + batch_idx
        is_warmup = iteration * self.training_config.loader.batch_size < self.training_config.discriminator_warmup
        num_steps, interval, values = self.training_config.discriminator_steps, self.penalty.interval, {}
        for step in range(num_steps):
            is_last = step == num_steps - 1
            with torch.set_grad_enabled(is_last and not is_warmup):
                fake = self.generator(self.latents(len(real)))
            is_penalised = (iteration * num_steps + step) % interval == 0
            values.update(
                self.step_discriminator(d_optimizer, real, fake.detach(), is_penalised, is_warmup and is_last)
            )
            d_schedule.step()
        if not is_warmup:
            values.update(self.step_generator(g_optimizer, fake, real))
            g_schedule.step()
            self.moving_average.update_parameters(self.generator)
        if is_logged(self.trainer):
            self.log_dict(
                {name: values.pop(name) for name in ("train/d_loss", "train/d_real", "train/d_fake")},
                prog_bar=True,
            )
            self.log_dict(values)

    def step_discriminator(
        self, optimizer: LightningOptimizer, real: Tensor, fake: Tensor, is_penalised: bool, is_counted: bool
    ) -> dict[str, Tensor]:
        """One step of the discriminator on real and detached fake images; returns what to log."""
        real_logits, fake_logits = self.discriminator(torch.cat([real, fake])).chunk(2)
        loss = self.loss.discriminator(real_logits, fake_logits).mean()
        values = {"train/d_loss": loss.detach()}
        if is_penalised:
            penalty = self.penalty(self.discriminator, real, fake).mean()
            loss = loss + self.penalty.interval * penalty
        optimizer.zero_grad()
        self.manual_backward(loss)
        if is_logged(self.trainer):
            values["train/d_grad_norm"] = gradient_norm(self.discriminator.parameters())
            values["train/d_real"], values["train/d_fake"] = (
                real_logits.detach().mean(),
                fake_logits.detach().mean(),
            )
        self.apply_step(optimizer, is_counted)
        return values

    def step_generator(self, optimizer: LightningOptimizer, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """One step of the generator on fakes that carry its graph; the discriminator is frozen meanwhile."""
        with self.toggled_optimizer(optimizer):
            fake_logits = self.discriminator(fake)
            real_logits = self.discriminator(real) if self.loss.PAIRED else torch.zeros_like(fake_logits)
            loss = self.loss.generator(fake_logits, real_logits).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            values = {"train/g_loss": loss.detach()}
            if is_logged(self.trainer):
                values["train/g_grad_norm"] = gradient_norm(self.generator.decoder.parameters())
            self.apply_step(optimizer, is_counted=True)
        return values

    def apply_step(self, optimizer: LightningOptimizer, is_counted: bool) -> None:
        """Update the weights. Lightning counts steps of all optimizers in `global_step`: one a batch shall count."""
        if is_counted:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

    def on_validation_epoch_start(self) -> None:
        self._start_scoring()

    def on_test_epoch_start(self) -> None:
        self.frechet.reset_real_features = True  # those of the val split
        self.frechet.reset()
        self._start_scoring()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(batch)

    def on_validation_epoch_end(self) -> None:
        self.log("val/frechet_distance", self.frechet.compute(), prog_bar=True)
        self.frechet.reset()

    def on_test_epoch_end(self) -> None:
        self.log("test/frechet_distance", self.frechet.compute())
        self.frechet.reset()

    def _start_scoring(self) -> None:
        self.needs_real_features = int(self.frechet.real_features_num_samples) == 0

    def _score(self, batch: Batch) -> None:
        real, _ = batch
        if self.needs_real_features:
            self.frechet.update(encoder_features(self.vae, real), real=True)
        fake = self.average(self.latents(len(real)))
        self.frechet.update(encoder_features(self.vae, fake), real=False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaegan"] = self.header
