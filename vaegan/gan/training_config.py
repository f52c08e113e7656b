"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.gan.augmentation import Augmentation
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.penalties import GradientPenalty
from vaegan.gan.warm_start import WarmStartConfig
from vaegan.images import ImageShape
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.networks.discriminators import Discriminator
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig, check_batch_size

LONGEST_WARMUP = 6_400  # images; of the discriminator, unless told otherwise


@dataclass
class GANConfig:
    """The discriminator and what the two players minimize. The generator comes from the VAE."""

    discriminator: Discriminator.Config = MISSING
    adversarial_loss: AdversarialLoss.Config = MISSING
    gradient_penalty: GradientPenalty.Config = MISSING
    augmentation: Augmentation.Config = MISSING
    feature_extractor: FeatureExtractor.Config | None = (
        None  # of the scores; null: digits_cnn for classes it knows, else the VAE
    )


@dataclass
class GANTraining:
    """How the GAN is trained."""

    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    discriminator_warmup: int | None = (
        None  # images in which only D learns; null: 6,400, at most a tenth of all
    )
    discriminator_warmup_accuracy: float | None = (
        None  # share of pairs with real above fake that ends it; null: none
    )
    discriminator_steps: int = 1  # discriminator steps for each generator step
    gradient_accumulation: int = (
        1  # parts of a batch that are computed one after the other, to save memory
    )
    gradient_clip: float | None = None  # largest norm of a player's gradient; null: any
    ema_half_life: float = (
        10_000.0  # images after which a generator's share in the moving average has halved
    )
    ema_rampup: float = (
        0.1  # half-life at most this share of the images so far; 0: the full one from the start
    )
    score_every_n_images: int | None = (
        None  # from one validation to the next; null: trainer.val_check_interval
    )
    generator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=0.5, beta2=0.99)
    )
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=0.5, beta2=0.99)
    )
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(batch_size=64))
    trainer: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(max_epochs=5, val_check_interval=0.5)
    )
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        warmup = self.discriminator_warmup
        require(
            warmup is None or warmup >= 0, "discriminator_warmup", "at least 0, or null", warmup
        )
        require(
            self.discriminator_steps >= 1,
            "discriminator_steps",
            "at least 1",
            self.discriminator_steps,
        )
        require(self.ema_half_life > 0, "ema_half_life", "positive", self.ema_half_life)
        require(self.ema_rampup >= 0, "ema_rampup", "at least 0", self.ema_rampup)
        accuracy, clip, every = (
            self.discriminator_warmup_accuracy,
            self.gradient_clip,
            self.score_every_n_images,
        )
        expected = "in (0.5, 1), 0.5 being chance, or null"
        require(
            accuracy is None or 0.5 < accuracy < 1,
            "discriminator_warmup_accuracy",
            expected,
            accuracy,
        )
        expected = "null without a warm-up (discriminator_warmup=0)"
        require(
            accuracy is None or warmup != 0, "discriminator_warmup_accuracy", expected, accuracy
        )
        require(clip is None or clip > 0, "gradient_clip", "positive, or null", clip)
        check_batch_size(self.loader, self.trainer)
        batch_size = self.loader.batch_size
        expected = f"at least loader.batch_size={batch_size}, or null"
        require(every is None or every >= batch_size, "score_every_n_images", expected, every)
        local, parts = (
            batch_size // (self.trainer.devices * self.trainer.num_nodes),
            self.gradient_accumulation,
        )
        expected = f"a divisor of the {local} images of a batch on one device"
        require(parts >= 1 and local % parts == 0, "gradient_accumulation", expected, parts)

    @property
    def warmup_images(self) -> int:
        """`discriminator_warmup`, or what null stands for."""
        return LONGEST_WARMUP if self.discriminator_warmup is None else self.discriminator_warmup

    def settle(self, image_shape: ImageShape, num_images: int) -> None:
        """Put numbers in the place of what was left to the data: the images' shape, and how many a training sees.

        The rates were found on MNIST (`experiment=warm_start_study`) and on clip art of 64 x 64 pixels, where those of
        MNIST make the images blank.

        Raises:
            ValueError: The discriminator's warm-up takes the whole training.
        """
        is_small = max(image_shape[1:]) <= 32
        self.generator_optimizer.lr = self.generator_optimizer.lr or (6e-3 if is_small else 3e-4)
        self.discriminator_optimizer.lr = self.discriminator_optimizer.lr or (
            4e-3 if is_small else 3e-4
        )
        if self.discriminator_warmup is None:
            self.discriminator_warmup = min(LONGEST_WARMUP, num_images // 10)
        expected = f"less than the {num_images} images of the whole training"
        require(
            self.discriminator_warmup < num_images,
            "discriminator_warmup",
            expected,
            self.discriminator_warmup,
        )

    def ema_decay(self, num_images: int) -> float:
        """Share of the old moving average that one batch leaves, after so many images of the generator's training."""
        ramped = num_images * self.ema_rampup if self.ema_rampup else math.inf
        half_life = min(self.ema_half_life, ramped)
        return 0.5 ** (self.loader.batch_size / half_life) if half_life else 0.0
