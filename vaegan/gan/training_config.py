"""Settings of a GAN and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.gan.augmentation import Augmentation, NoAugmentation
from vaegan.gan.losses import AdversarialLoss, NonSaturating
from vaegan.gan.penalties import R1, GradientPenalty
from vaegan.gan.warm_start import WarmStartConfig
from vaegan.images import ImageShape
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.networks import discriminators
from vaegan.networks.discriminators import Discriminator
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig, check_batch_size

T = TypeVar("T", bound="GANTraining")

MAX_DEFAULT_WARMUP = 6_400  # images
MAX_SMALL_SIZE = 32  # pixels, up to which the learning rates of small images are the defaults
# Learning rates found on MNIST (experiment=warm_start_study), and on clip art of 64 x 64 pixels,
# where those of MNIST make the images blank.
SMALL_IMAGE_RATES = {"generator": 6e-3, "discriminator": 4e-3}
LARGE_IMAGE_RATES = {"generator": 3e-4, "discriminator": 3e-4}


@dataclass
class GANConfig:
    """The discriminator and the losses. The generator comes from the VAE."""

    discriminator: Discriminator.Config = field(default_factory=discriminators.Conv.Config)
    adversarial_loss: AdversarialLoss.Config = field(default_factory=NonSaturating.Config)
    gradient_penalty: GradientPenalty.Config = field(default_factory=R1.Config)
    augmentation: Augmentation.Config = field(default_factory=NoAugmentation.Config)
    # network of the scores; null: digits_cnn for classes that it knows, else the VAE's encoder
    feature_extractor: FeatureExtractor.Config | None = None


def gan_optimizer() -> OptimizerConfig:
    """Return the default optimizer of generator and discriminator."""
    return OptimizerConfig(lr=None, lr_final=0.1, beta1=0.5, beta2=0.99)


@dataclass
class GANTraining:
    """Settings of a GAN's training."""

    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    # images in which only the discriminator learns; null: 6,400, at most a tenth of all
    discriminator_warmup: int | None = None
    # share of pairs with the real logit above the fake one that ends the warm-up; null: none does
    discriminator_warmup_accuracy: float | None = None
    discriminator_steps: int = 1  # discriminator steps for each generator step
    gradient_accumulation: int = 1  # parts of a batch, computed one by one to save memory
    gradient_clip: float | None = None  # largest norm of a network's gradient; null: any
    ema_half_life: float = 10_000.0  # images after which a generator's share in the EMA has halved
    # the EMA's half-life is at most this share of the images so far; 0: the full one from the start
    ema_rampup: float = 0.1
    # images from one validation to the next; null: trainer.val_check_interval
    score_every_n_images: int | None = None
    generator_optimizer: OptimizerConfig = field(default_factory=gan_optimizer)
    discriminator_optimizer: OptimizerConfig = field(default_factory=gan_optimizer)
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(batch_size=64))
    trainer: TrainerConfig = field(
        default_factory=lambda: TrainerConfig(max_epochs=5, val_check_interval=0.5)
    )
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        self._check_warmup()
        num_steps = self.discriminator_steps
        require(num_steps >= 1, "discriminator_steps", "at least 1", num_steps)
        require(self.ema_half_life > 0, "ema_half_life", "positive", self.ema_half_life)
        require(self.ema_rampup >= 0, "ema_rampup", "at least 0", self.ema_rampup)
        clip = self.gradient_clip
        require(clip is None or clip > 0, "gradient_clip", "positive, or null", clip)
        check_batch_size(self.loader, self.trainer)
        batch_size = self.loader.batch_size
        interval = self.score_every_n_images
        expected = f"at least loader.batch_size={batch_size}, or null"
        is_valid = interval is None or interval >= batch_size
        require(is_valid, "score_every_n_images", expected, interval)
        num_local = batch_size // (self.trainer.devices * self.trainer.num_nodes)
        num_parts = self.gradient_accumulation
        expected = f"a divisor of the {num_local} images of a batch on one device"
        is_divisor = num_parts >= 1 and num_local % num_parts == 0
        require(is_divisor, "gradient_accumulation", expected, num_parts)

    def _check_warmup(self) -> None:
        warmup = self.discriminator_warmup
        is_valid = warmup is None or warmup >= 0
        require(is_valid, "discriminator_warmup", "at least 0, or null", warmup)
        key = "discriminator_warmup_accuracy"
        accuracy = self.discriminator_warmup_accuracy
        if accuracy is not None:
            expected = "in (0.5, 1), 0.5 being chance, or null"
            require(0.5 < accuracy < 1, key, expected, accuracy)
            expected = "null without a warm-up (discriminator_warmup=0)"
            require(warmup != 0, key, expected, accuracy)


def resolve_data_defaults(training: T, image_shape: ImageShape, num_images: int) -> T:
    """Return the settings with numbers for those that are left to the data.

    Args:
        training: The settings.
        image_shape: Channels, height, width.
        num_images: Images of the whole training.

    Raises:
        ValueError: The discriminator's warm-up takes the whole training.
    """
    is_small = max(image_shape[1:]) <= MAX_SMALL_SIZE
    rates = SMALL_IMAGE_RATES if is_small else LARGE_IMAGE_RATES
    warmup = training.discriminator_warmup
    if warmup is None:
        warmup = min(MAX_DEFAULT_WARMUP, num_images // 10)
    expected = f"less than the {num_images} images of the whole training"
    require(warmup < num_images, "discriminator_warmup", expected, warmup)
    return replace(
        training,
        discriminator_warmup=warmup,
        generator_optimizer=with_rate(training.generator_optimizer, rates["generator"]),
        discriminator_optimizer=with_rate(training.discriminator_optimizer, rates["discriminator"]),
    )


def with_rate(optimizer: OptimizerConfig, lr: float) -> OptimizerConfig:
    """Return the optimizer's settings with a learning rate if they have none."""
    return replace(optimizer, lr=optimizer.lr or lr)
