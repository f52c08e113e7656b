"""Configs of a GAN and of its training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TypeVar

from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.gan.augmentation import Augmentation, DiffAugment, NoAugmentation
from vaegan.gan.emphasis import EmphasisConfig
from vaegan.gan.losses import AdversarialLoss, NonSaturating
from vaegan.gan.penalties import R1, GradientPenalty
from vaegan.gan.warm_start import WarmStartConfig
from vaegan.images import ImageShape
from vaegan.metrics import pretrained_extractors  # noqa: F401 (registers clip and dinov2)
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.networks import discriminators
from vaegan.networks.discriminators import Discriminator
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig, check_batch_size

T = TypeVar("T", bound="GANTraining")
Defaults = dict[str, dict[str, float]]  # settings of the optimizers, by network

MAX_DEFAULT_WARMUP = 6_400  # images
MAX_SMALL_IMAGE_SIZE = 32  # pixels, largest height or width of small images
# At this |logit| a pixel is less than a tenth of an 8-bit level from 0 or 1. Tuned on MNIST. On
# clip art, cold starts without it turned white; with it, warm starts have noisier flat areas.
DEFAULT_SATURATION_LOGIT = 8.0
# Settings of the optimizers that depend on the data, tuned on MNIST, and on clip art at 32 and 64
# pixels
DIGIT_DEFAULTS: Defaults = {
    "generator": {"lr": 3e-3, "beta1": 0.0},
    "discriminator": {"lr": 2e-3, "beta1": 0.0},
}
SMALL_NATURAL_DEFAULTS: Defaults = {
    "generator": {"lr": 1e-3, "beta1": 0.5},
    "discriminator": {"lr": 1e-3, "beta1": 0.5},
}
COLD_NATURAL_DEFAULTS: Defaults = {  # the same images, cold starts
    "generator": {"lr": 4e-3, "beta1": 0.5},
    "discriminator": {"lr": 4e-3, "beta1": 0.5},
}
LARGE_IMAGE_DEFAULTS: Defaults = {
    "generator": {"lr": 3e-4, "beta1": 0.5},
    "discriminator": {"lr": 3e-4, "beta1": 0.5},
}


@dataclass
class GANConfig:
    """Discriminator, losses, augmentation and scores. The generator is a decoder like the VAE's."""

    # architecture of the discriminator
    discriminator: Discriminator.Config = field(default_factory=discriminators.Conv.Config)
    # adversarial loss of discriminator and generator
    adversarial_loss: AdversarialLoss.Config = field(default_factory=NonSaturating.Config)
    # penalty on the gradient of the discriminator with respect to its input
    gradient_penalty: GradientPenalty.Config = field(default_factory=R1.Config)
    # augmentation of real and fake images before the discriminator; null: diff_augment for natural
    # images, else none
    augmentation: Augmentation.Config | None = None
    # network whose features are scored; null: digits_cnn if it knows the data set's classes, else
    # pyramid, or vae_encoder for images below 16 pixels
    feature_extractor: FeatureExtractor.Config | None = None

    def resolved_augmentation(self, is_natural: bool) -> Augmentation.Config:
        """Return the augmentation; if it is not set, the default for natural or other images."""
        default = DiffAugment.Config() if is_natural else NoAugmentation.Config()
        return self.augmentation or default


@dataclass
class GANTraining:
    """Training of a GAN."""

    # use of the VAE: copied layers, latent distribution, reconstruction losses
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    # emphasis of colors and details in the augmented images before the discriminator
    emphasis: EmphasisConfig = field(default_factory=EmphasisConfig)
    # true: add noise to the hidden layers of a generator with convolutions, for textures; null:
    # true for photographs (natural images in which less than a fifth of the neighboring pixels are
    # equal), or as in the earlier GAN in init
    noise_inputs: bool | None = None
    # length of the warm-up in which only the discriminator is trained, in real images, >= 0 and
    # less than all images seen in training; null: 0 for cold starts without
    # discriminator_warmup_accuracy, else 6,400, but at most a tenth of these
    discriminator_warmup: int | None = None
    # running mean of the fraction of pairs with real logit > fake logit, in (0.5, 1), at which the
    # discriminator warm-up ends early; null: it never ends early
    discriminator_warmup_accuracy: float | None = None
    discriminator_steps: int = 1  # discriminator steps per generator step, >= 1
    # micro-batches per batch and device, computed one after another to save memory; a divisor of
    # the batch size per device
    gradient_accumulation: int = 1
    gradient_clip: float | None = None  # maximum gradient norm of a network, > 0; null: no clipping
    # |logit| above which a generated pixel counts as saturated, >= 0; its gradient then uses the
    # sigmoid's slope at this limit, and is 0 if the step would move the pixel away from gray; no
    # effect unless the mean of the likelihood is a sigmoid (bernoulli, gaussian, laplace);
    # 0: exact gradients; null: 8, but 0 for warm starts on natural images
    saturation_logit: float | None = None
    # fraction of training after which gradients are exact for any saturation_logit, in [0, 1]
    saturation_fraction: float = 0.5
    # images after which the weight of a past generator in the EMA has halved, > 0
    ema_half_life: float = 10_000.0
    # the EMA half-life is at most this fraction of the images so far, >= 0; 0: no ramp-up
    ema_rampup: float = 0.1
    # images from one validation to the next, at least the batch size; null: use
    # trainer.val_check_interval
    score_every_n_images: int | None = None
    # optimizer of the generator; the values for null are listed in docs/gan-and-warm-start.md
    generator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=None, beta2=0.99)
    )
    # optimizer of the discriminator; the values for null are listed in docs/gan-and-warm-start.md
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=None, beta2=0.99)
    )
    # batch sizes and data loading
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(batch_size=64))
    # devices, length of training, validation and logging
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(val_check_interval=0.5))
    # checkpoints of the run
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        self._check_warmup()
        num_steps = self.discriminator_steps
        require(num_steps >= 1, "discriminator_steps", "at least 1", num_steps)
        require(self.ema_half_life > 0, "ema_half_life", "positive", self.ema_half_life)
        require(self.ema_rampup >= 0, "ema_rampup", "at least 0", self.ema_rampup)
        logit = self.saturation_logit
        require(logit is None or logit >= 0, "saturation_logit", "at least 0, or null", logit)
        fraction = self.saturation_fraction
        require(0 <= fraction <= 1, "saturation_fraction", "in [0, 1]", fraction)
        clip = self.gradient_clip
        require(clip is None or clip > 0, "gradient_clip", "positive, or null", clip)
        require(self.loader.batch_size is not None, "loader.batch_size", "at least 1", None)
        check_batch_size(self.loader, self.trainer)
        batch_size = self.loader.images_per_step
        interval = self.score_every_n_images
        expected = f"at least loader.batch_size={batch_size}, or null"
        is_valid = interval is None or interval >= batch_size
        require(is_valid, "score_every_n_images", expected, interval)
        num_local = batch_size // (self.trainer.devices * self.trainer.num_nodes)
        num_parts = self.gradient_accumulation
        expected = f"a divisor of the {num_local} images per batch and device"
        is_divisor = num_parts >= 1 and num_local % num_parts == 0
        require(is_divisor, "gradient_accumulation", expected, num_parts)

    def saturation_logit_at(self, fraction: float) -> float:
        """Return `saturation_logit`, or 0 if it is no longer used, after a fraction of training."""
        assert self.saturation_logit is not None, "call resolve_data_defaults first"
        return self.saturation_logit if fraction < self.saturation_fraction else 0.0

    def duration_dependent_settings(self) -> list[str]:
        """Return the settings whose effect depends on the duration of training, as "key=value"."""
        optimizers = {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        settings = [
            f"{key}.{setting}"
            for key, optimizer in optimizers.items()
            for setting in optimizer.duration_dependent_settings()
        ]
        if self.saturation_logit_at(0.0) != self.saturation_logit_at(1 - 1e-9):
            settings.append(f"saturation_fraction={self.saturation_fraction:g}")
        return settings

    def _check_warmup(self) -> None:
        warmup = self.discriminator_warmup
        is_valid = warmup is None or warmup >= 0
        require(is_valid, "discriminator_warmup", "at least 0, or null", warmup)
        key = "discriminator_warmup_accuracy"
        accuracy = self.discriminator_warmup_accuracy
        if accuracy is not None:
            expected = "in (0.5, 1), where 0.5 is chance level, or null"
            require(0.5 < accuracy < 1, key, expected, accuracy)
            expected = "null without a warm-up (discriminator_warmup=0)"
            require(warmup != 0, key, expected, accuracy)


def resolve_data_defaults(
    training: T,
    image_shape: ImageShape,
    num_images: int,
    is_natural: bool = False,
    is_trained: bool = False,
) -> T:
    """Return the config with the null values that depend on the data replaced by numbers.

    These are `discriminator_warmup`, `saturation_logit`, and `lr` and `beta1` of the optimizers.

    Args:
        training: Config to resolve; it is not modified.
        image_shape: Channels, height, width.
        num_images: Number of real images seen in the whole training run.
        is_natural: True for natural images (`ImageSource.IS_NATURAL`).
        is_trained: True if training starts from the weights of an earlier GAN.

    Raises:
        ValueError: The discriminator warm-up is not shorter than the training run.
    """
    is_warm = is_trained or training.warm_start.generator != "none"
    defaults = optimizer_defaults(image_shape, is_natural, is_warm)
    warmup = training.discriminator_warmup
    if warmup is None:
        warmup = default_warmup(training, num_images, is_warm)
    expected = f"less than {num_images}, the number of images seen in training"
    require(warmup < num_images, "discriminator_warmup", expected, warmup)
    saturation_logit = training.saturation_logit
    if saturation_logit is None:
        saturation_logit = 0.0 if is_natural and is_warm else DEFAULT_SATURATION_LOGIT
    return replace(
        training,
        discriminator_warmup=warmup,
        saturation_logit=saturation_logit,
        generator_optimizer=with_defaults(training.generator_optimizer, defaults["generator"]),
        discriminator_optimizer=with_defaults(
            training.discriminator_optimizer, defaults["discriminator"]
        ),
    )


def default_warmup(training: GANTraining, num_images: int, is_warm: bool) -> int:
    """Return the default length of the discriminator warm-up, in real images."""
    has_warmup = is_warm or training.discriminator_warmup_accuracy is not None
    return min(MAX_DEFAULT_WARMUP, num_images // 10) if has_warmup else 0


def optimizer_defaults(image_shape: ImageShape, is_natural: bool, is_warm: bool) -> Defaults:
    """Return the default settings of the optimizers for images of a shape and kind."""
    if max(image_shape[1:]) > MAX_SMALL_IMAGE_SIZE:
        return LARGE_IMAGE_DEFAULTS
    if not is_natural:
        return DIGIT_DEFAULTS
    return SMALL_NATURAL_DEFAULTS if is_warm else COLD_NATURAL_DEFAULTS


def with_defaults(optimizer: OptimizerConfig, defaults: dict[str, float]) -> OptimizerConfig:
    """Return the optimizer config with its null values replaced."""
    filled = {key: value for key, value in defaults.items() if getattr(optimizer, key) is None}
    return replace(optimizer, **filled)
