"""Stage gan: wires generator, discriminator, losses and penalty to Lightning's manual optimization.

Every iteration takes one batch of real images. The discriminator steps `discriminator_steps` times, each with fresh
fakes; then the generator steps once, on the last of these fakes, with the discriminator frozen. During the
discriminator's warm-up the generator does not step at all. Both players see images through the same augmentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vaegan.data.datamodule import Batch
from vaegan.gan.augmentation import Augmentation, next_probability
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior, latent_distribution
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.penalties import GradientPenalty
from vaegan.gan.training_config import GANTraining
from vaegan.gan.warm_start import layers, reconstruction_loss
from vaegan.metrics.scorer import Scorer
from vaegan.metrics.scores import NonFiniteError
from vaegan.networks.discriminators import Discriminator
from vaegan.training.flops import FlopCounts
from vaegan.training.gradients import clip_gradients, drop_gradients, gradient_norm, is_logged
from vaegan.vae.model import VAE, full_precision

ACCURACY_DECAY = 0.9  # of the mean accuracy that ends a warm-up, per batch


@dataclass
class GANComponents:
    """What plays, by which rules."""

    vae: VAE  # gives the latents, and the encoder of the reconstruction anchor; frozen
    aggregate: AggregatePosterior | None  # gives the latents in its place
    generator: Generator  # what is trained; shares no weight with the VAE
    discriminator: Discriminator  # its opponent
    loss: AdversarialLoss
    penalty: GradientPenalty
    augmentation: Augmentation


@dataclass
class Progress:
    """What the next step has to know of the past ones, beside the weights."""

    images: int = 0  # real ones that the discriminator was shown, those of its warm-up included
    discriminator_updates: int = 0
    generator_updates: int = 0
    accuracy: float = 0.5  # of the discriminator, averaged over its last batches; only while its warm-up waits for it
    is_warm: bool = False  # whether the warm-up is over
    warmup_images: int = 0  # that it takes: as far as is known
    flops: float = 0.0  # spent so far


class GANModule(pl.LightningModule):
    """Trains a generator and a discriminator against each other.

    Args:
        parts: What plays.
        scorer: Compares generated with real images.
        training: How to train.
        header: What a checkpoint says of itself (`vaegan.checkpoints.checkpoint.header`).
    """

    def __init__(
        self, parts: GANComponents, scorer: Scorer, training: GANTraining, header: dict[str, Any]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.vae = parts.vae.requires_grad_(False).eval()
        self.aggregate = parts.aggregate
        self.generator = parts.generator.to(memory_format=torch.channels_last)
        self.generator.likelihood.requires_grad_(
            False
        )  # its mean has no parameters of its own to learn
        self.discriminator = parts.discriminator.to(memory_format=torch.channels_last)
        self.moving_average = AveragedModel(
            self.generator, multi_avg_fn=self._average, use_buffers=False
        )
        self.moving_average.requires_grad_(False).eval()
        self.loss, self.penalty, self.augmentation = parts.loss, parts.penalty, parts.augmentation
        self.register_buffer(
            "augment_probability", torch.tensor(float(parts.augmentation.config.probability))
        )
        self.augment_probability: Tensor
        self.scorer, self.training_config, self.header = scorer, training, header
        self.progress, self.flops = Progress(), FlopCounts()
        self.terms: dict[str, Tensor] = {}  # what the next optimizer step follows from
        self.progress.warmup_images = training.warmup_images
        self.progress.is_warm = training.warmup_images == 0

    def _average(self, averaged: Any, current: Any, num_averaged: Any) -> None:
        decay = self.training_config.ema_decay(
            int(num_averaged) * self.training_config.loader.batch_size
        )
        get_ema_multi_avg_fn(decay)(averaged, current, num_averaged)

    @property
    def average(self) -> Generator:
        """The moving average of the generator: what is scored, drawn and kept."""
        generator = self.moving_average.module
        assert isinstance(generator, Generator)
        return generator

    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), of latents (B, latent_dim)."""
        return self.average(z)

    def configure_optimizers(self) -> Any:
        config, num_batches = self.training_config, int(self.trainer.estimated_stepping_batches)
        self.num_discriminator_updates = num_batches * config.discriminator_steps
        g_optimizer, g_schedule = config.generator_optimizer.build(
            self.generator.decoder.parameters(),
            lambda: num_batches - -(-self.progress.warmup_images // config.loader.batch_size),
        )
        d_optimizer, d_schedule = config.discriminator_optimizer.build(
            self.discriminator.parameters(), lambda: self.num_discriminator_updates
        )
        return [g_optimizer, d_optimizer], [
            {"scheduler": g_schedule, "name": "train/g_lr"},
            {"scheduler": d_schedule, "name": "train/d_lr"},
        ]

    def latent_distribution(self) -> Distribution:
        """What latents are drawn from, batch (): the VAE's prior, or the normal fitted to its aggregate posterior."""
        return latent_distribution(self.vae, self.aggregate)

    def latents(self, num: int) -> Tensor:
        """Draw latents (num, latent_dim)."""
        with torch.no_grad():
            return self.latent_distribution().sample((num,))

    def discriminator_logits(self, images: Tensor) -> Tensor:
        """Logits (B,) of images (B, C, H, W), through the augmentation."""
        return full_precision(
            self.discriminator(self.augmentation(images, self.augment_probability))
        )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        config, progress = self.training_config, self.progress
        real, _ = batch
        reals = real.chunk(config.gradient_accumulation)
        g_optimizer, d_optimizer = self.optimizers()  # type: ignore[attr-defined]
        g_schedule, d_schedule = self.lr_schedulers()  # type: ignore[misc]
        values: dict[str, Tensor] = {}
        for step in range(config.discriminator_steps):
            is_last = step == config.discriminator_steps - 1
            latents = self.latents(len(real)).chunk(len(reals))
            keeps_graph = (
                is_last and progress.is_warm and len(reals) == 1
            )  # then the generator's step needs no other
            with torch.set_grad_enabled(keeps_graph), self.counted("fakes"):
                fakes = [self.generator(z) for z in latents]
            detached = [fake.detach() for fake in fakes]
            values |= self.step_discriminator(
                d_optimizer, reals, detached, is_last and not progress.is_warm
            )
            d_schedule.step()
        if progress.is_warm:
            values |= self.step_generator(g_optimizer, latents, fakes, reals)
            g_schedule.step()
            self.moving_average.update_parameters(self.generator)
        progress.images += config.loader.batch_size
        if not progress.is_warm and self._is_warmed_up():
            progress.is_warm, progress.warmup_images = True, progress.images
        if is_logged(self.trainer):
            first = ("train/d_loss", "train/d_real", "train/d_fake")
            self.log_dict({name: values.pop(name) for name in first}, prog_bar=True, sync_dist=True)
            self.log_dict(values, sync_dist=True)

    def _is_warmed_up(self) -> bool:
        wanted, progress = self.training_config.discriminator_warmup_accuracy, self.progress
        is_accurate = wanted is not None and progress.accuracy >= wanted
        return is_accurate or progress.images >= self.training_config.warmup_images

    def step_discriminator(
        self,
        optimizer: LightningOptimizer,
        reals: tuple[Tensor, ...],
        fakes: list[Tensor],
        is_counted: bool,
    ) -> dict[str, Tensor]:
        """One step of the discriminator on real and detached fake images; returns what to log."""
        num_done = self.progress.discriminator_updates
        weight = self.penalty.weight(num_done, num_done / self.num_discriminator_updates)
        optimizer.zero_grad()
        judged = []
        with self.counted(f"discriminator {weight > 0}"):
            for real, fake in zip(reals, fakes, strict=True):
                real_logits, fake_logits = self.discriminator_logits(torch.cat([real, fake])).chunk(
                    2
                )
                loss = self.loss.discriminator(real_logits, fake_logits).mean()
                accuracy = (real_logits > fake_logits).float().mean()
                sign = (
                    (real_logits - fake_logits if self.loss.IS_RELATIVISTIC else real_logits)
                    .sign()
                    .mean()
                )
                penalty = (
                    weight * self.penalty(self.discriminator_logits, real, fake).mean()
                    if weight
                    else torch.zeros_like(loss)
                )
                told = [real_logits.mean(), fake_logits.mean(), accuracy, sign, penalty]
                judged.append(torch.stack([loss, *told]).detach())
                self.manual_backward((loss + penalty if weight else loss) / len(reals))
        *means, sign, penalty = torch.stack(judged).mean(0)
        self.terms = {"train/d_loss": means[0], "the gradient penalty": penalty}
        values = dict(
            zip(
                ("train/d_loss", "train/d_real", "train/d_fake", "train/d_accuracy"),
                means,
                strict=True,
            )
        )
        values |= self.apply_step(optimizer, self.discriminator, "d", is_counted)
        self._adapt(sign, values["train/d_accuracy"])
        self.progress.discriminator_updates += 1
        return values

    def _adapt(self, sign: Tensor, accuracy: Tensor) -> None:
        """Let the probability of augmentation follow the discriminator, and the warm-up wait for it."""
        config, progress = self.training_config, self.progress
        augmentation, probability = self.augmentation.config, self.augment_probability
        if augmentation.adaptive_target is not None:
            sign = self.trainer.strategy.reduce(sign, reduce_op="mean")
            target, images = (
                augmentation.adaptive_target,
                config.loader.batch_size / config.discriminator_steps,
            )
            probability.copy_(
                next_probability(probability, sign, target, images, augmentation.adaptive_images)
            )
        if config.discriminator_warmup_accuracy is not None and not progress.is_warm:
            mean = float(self.trainer.strategy.reduce(accuracy, reduce_op="mean"))
            progress.accuracy = ACCURACY_DECAY * progress.accuracy + (1 - ACCURACY_DECAY) * mean

    def step_generator(
        self,
        optimizer: LightningOptimizer,
        latents: tuple[Tensor, ...],
        fakes: list[Tensor],
        reals: tuple[Tensor, ...],
    ) -> dict[str, Tensor]:
        """One step of the generator, the discriminator frozen meanwhile; one fake alone carries its graph."""
        config = self.training_config.warm_start
        num_images = self.progress.generator_updates * self.training_config.loader.batch_size
        reconstruction_weight = config.reconstruction_weight_at(num_images)
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            losses, anchors = [], []
            with self.counted(f"generator {reconstruction_weight > 0}"):
                for z, fake, real in zip(latents, fakes, reals, strict=True):
                    fake_logits = self.discriminator_logits(
                        fake if len(fakes) == 1 else self.generator(z)
                    )
                    real_logits = (
                        self.discriminator_logits(real)
                        if self.loss.IS_RELATIVISTIC
                        else torch.zeros_like(fake_logits)
                    )
                    loss = self.loss.generator(fake_logits, real_logits).mean()
                    losses.append(loss.detach())
                    if reconstruction_weight:
                        anchors.append(
                            reconstruction_weight
                            * reconstruction_loss(self.vae, self.generator, real)
                        )
                        loss = loss + anchors[-1]
                    self.manual_backward(loss / len(fakes))
            if num_images < config.freeze_images:
                drop_gradients(
                    list(layers(self.generator.decoder).values())[: config.freeze_layers]
                )
            values = {"train/g_loss": torch.stack(losses).mean()}
            self.terms = values | ({"the anchor": torch.stack(anchors)} if anchors else {})
            values |= self.apply_step(optimizer, self.generator.decoder, "g", is_counted=True)
        self.progress.generator_updates += 1
        return values

    def apply_step(
        self, optimizer: LightningOptimizer, network: nn.Module, player: str, is_counted: bool
    ) -> dict[str, Tensor]:
        """Update the weights. Lightning counts steps of all optimizers in `global_step`: one a batch shall count."""
        values = {}
        if is_logged(self.trainer):
            values[f"train/{player}_grad_norm"] = gradient_norm(network.parameters(), self.trainer)
        if self.training_config.gradient_clip is not None:
            clip_gradients(network.parameters(), self.training_config.gradient_clip, self.trainer)
        if is_counted:
            optimizer.step()
        else:
            self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        return values

    @contextmanager
    def counted(self, part: str) -> Iterator[None]:
        """Adds the floating-point operations of what is done inside, the same for the same part, to the progress."""
        with self.flops.counted(part):
            yield
        self.progress.flops += self.flops.counts[part] * self.trainer.world_size

    def on_validation_epoch_start(self) -> None:
        self.scorer.start("val", self.device)

    def on_test_epoch_start(self) -> None:
        self.scorer.start("test", self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.scorer.update(self.average(self.latents(len(batch[0]))))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.scorer.update(self.average(self.latents(len(batch[0]))))

    def on_validation_epoch_end(self) -> None:
        found = {f"val/{name}": value for name, value in self.scores().items()}
        self.log_dict({name: found.pop(name) for name in ["val/frechet_distance"]}, prog_bar=True)
        progress = self.progress
        self.log_dict(
            found | {"val/images": float(progress.images), "val/compute": progress.flops / 1e15}
        )
        self.log("val/generator_updates", float(progress.generator_updates))

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.scores().items()})

    def scores(self) -> dict[str, float]:
        """What the scorer makes of the images that it was given.

        Raises:
            ValueError: They are not finite: the training has diverged.
        """
        try:
            return self.scorer.compute()
        except NonFiniteError as error:
            raise ValueError(
                f"after {self.progress.images} images: {error}. The training has diverged; lower "
                "generator_optimizer.lr and discriminator_optimizer.lr. The checkpoints are untouched"
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaegan"] = self.header
        checkpoint["gan_progress"] = asdict(self.progress)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.progress = Progress(**checkpoint["gan_progress"])
        for name, value in self.vae.state_dict().items():  # the scores may look through its encoder
            if not torch.equal(value.cpu(), checkpoint["state_dict"][f"vae.{name}"].cpu()):
                raise ValueError(
                    "vae_ckpt is another VAE than the one that this GAN was begun with"
                )
