"""What a training run may set beside the model: optimizers, devices, durations. No Lightning here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from omegaconf import MISSING
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from vaegan.adversarial import AdversarialLoss, GradientPenalty
from vaegan.augmentation import Augmentation
from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.images import ImageShape
from vaegan.metrics.features import FeatureNetwork
from vaegan.nets.discriminators import Discriminator
from vaegan.warm_start import WarmStartConfig


@dataclass
class OptimizerConfig:
    """Adam, its learning rate rising linearly and then falling by half a cosine."""

    lr: float | None = 1e-3  # the highest learning rate; null (of a GAN): what suits the size of the images
    beta1: float = 0.9  # decay of the gradient's mean
    beta2: float = 0.999  # decay of its square's
    lr_warmup: float = 0.0  # share of the training in which the learning rate rises from 0
    lr_final: float = 1.0  # the last learning rate, as a share of lr; 1 keeps it constant

    def __post_init__(self) -> None:
        require(self.lr is None or self.lr > 0, "lr", "positive", self.lr)
        require(0 <= self.beta1 < 1, "beta1", "in [0, 1)", self.beta1)
        require(0 <= self.beta2 < 1, "beta2", "in [0, 1)", self.beta2)
        require(0 <= self.lr_warmup < 1, "lr_warmup", "in [0, 1)", self.lr_warmup)
        require(0 <= self.lr_final <= 1, "lr_final", "in [0, 1]", self.lr_final)

    def build(self, parameters: Iterable[nn.Parameter], num_steps: Callable[[], int]) -> tuple[Adam, LambdaLR]:
        """Optimizer, and its learning-rate schedule over `num_steps()` steps, a number that may change on the way."""
        assert self.lr is not None, "settled before"
        optimizer = Adam(parameters, self.lr, (self.beta1, self.beta2), fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor((step + 1) / max(1, num_steps())))

    def factor(self, progress: float) -> float:
        """Share of `lr` at a share of the training."""
        if progress < self.lr_warmup:
            return progress / self.lr_warmup
        fallen = (min(1.0, progress) - self.lr_warmup) / (1 - self.lr_warmup)
        return self.lr_final + (1 - self.lr_final) * 0.5 * (1 + math.cos(math.pi * fallen))


@dataclass
class DeviceConfig:
    """Where to run: Lightning's options under Lightning's names."""

    accelerator: str = "auto"  # auto, cpu, gpu, mps
    devices: int = 1  # devices on each node
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # auto, ddp, ...
    precision: str = "32-true"  # 32-true, bf16-mixed, 16-mixed
    enable_progress_bar: bool = True

    def __post_init__(self) -> None:
        precisions = ("32-true", "bf16-mixed", "16-mixed")
        require(self.precision in precisions, "precision", f"one of {', '.join(precisions)}", self.precision)
        require(self.devices >= 1, "devices", "at least 1", self.devices)
        require(self.num_nodes >= 1, "num_nodes", "at least 1", self.num_nodes)


@dataclass
class TrainerConfig(DeviceConfig):
    """Where and how long to train: Lightning's options under Lightning's names."""

    max_epochs: int = 10  # passes over the training set
    limit_train_batches: float = 1.0  # share of each training epoch
    val_check_interval: float = 1.0  # epochs from one validation, with its pictures, to the next; at most 1
    log_every_n_steps: int = 50  # batches from one logged value to the next
    skip_bad_steps: int = 0  # steps with a loss or gradient that is not finite, left out before the training ends

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_epochs >= 1, "max_epochs", "at least 1", self.max_epochs)
        require(0 < self.limit_train_batches <= 1, "limit_train_batches", "in (0, 1]", self.limit_train_batches)
        require(0 < self.val_check_interval <= 1, "val_check_interval", "in (0, 1]", self.val_check_interval)
        require(self.log_every_n_steps >= 1, "log_every_n_steps", "at least 1", self.log_every_n_steps)
        require(self.skip_bad_steps >= 0, "skip_bad_steps", "at least 0", self.skip_bad_steps)


@dataclass
class CheckpointConfig:
    """Checkpoints to go on from (`resume`), beside the best one."""

    every_n_minutes: float | None = 5.0  # from one to the next; null: not by time
    every_n_images: int | None = None  # training images from one to the next; null: not by their number
    keep: int = 2  # newest ones that are kept

    def __post_init__(self) -> None:
        minutes, images = self.every_n_minutes, self.every_n_images
        require(minutes is None or minutes > 0, "every_n_minutes", "positive, or null", minutes)
        require(images is None or images >= 1, "every_n_images", "at least 1, or null", images)
        require(self.keep >= 1, "keep", "at least 1", self.keep)


def check_batch_size(loader: LoaderConfig, trainer: TrainerConfig) -> None:
    """The batch of all devices together must divide into equal shares.

    Raises:
        ValueError: It does not; with both numbers and the nearest size that does.
    """
    num_devices = trainer.devices * trainer.num_nodes
    nearest = max(1, round(loader.batch_size / num_devices)) * num_devices
    expected = f"divisible by trainer.devices * trainer.num_nodes = {num_devices}, such as {nearest}"
    require(loader.batch_size % num_devices == 0, "loader.batch_size", expected, loader.batch_size)


@dataclass
class VAETraining:
    """How the VAE is trained."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=3e-3, lr_warmup=0.05, lr_final=0.0))
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=5))
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    early_stopping_patience: int | None = 10  # validations without a better bound before the training ends; null: never

    def __post_init__(self) -> None:
        require(self.optimizer.lr is not None, "optimizer.lr", "positive", self.optimizer.lr)
        patience = self.early_stopping_patience
        require(patience is None or patience >= 1, "early_stopping_patience", "at least 1, or null", patience)
        check_batch_size(self.loader, self.trainer)


LONGEST_WARMUP = 6_400  # images; of the discriminator, unless told otherwise


@dataclass
class GANConfig:
    """The discriminator and what the two players minimise. The generator comes from the VAE."""

    discriminator: Discriminator.Config = MISSING
    adversarial_loss: AdversarialLoss.Config = MISSING
    gradient_penalty: GradientPenalty.Config = MISSING
    augmentation: Augmentation.Config = MISSING
    features: FeatureNetwork.Config | None = None  # of the scores; null: digits_cnn for classes it knows, else the VAE


@dataclass
class GANTraining:
    """How the GAN is trained."""

    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    discriminator_warmup: int | None = None  # images in which only D learns; null: 6,400, at most a tenth of all
    discriminator_warmup_accuracy: float | None = None  # share of pairs with real above fake that ends it; null: none
    discriminator_steps: int = 1  # discriminator steps for each generator step
    gradient_accumulation: int = 1  # parts of a batch that are computed one after the other, to save memory
    gradient_clip: float | None = None  # largest norm of a player's gradient; null: any
    average_half_life: float = 10_000.0  # images after which a generator's share in the moving average has halved
    average_rampup: float = 0.1  # half-life at most this share of the images so far; 0: the full one from the start
    score_every_n_images: int | None = None  # from one validation to the next; null: trainer.val_check_interval
    generator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=0.5, beta2=0.99)
    )
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_final=0.1, beta1=0.5, beta2=0.99)
    )
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(batch_size=64))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=5, val_check_interval=0.5))
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    def __post_init__(self) -> None:
        warmup = self.discriminator_warmup
        require(warmup is None or warmup >= 0, "discriminator_warmup", "at least 0, or null", warmup)
        require(self.discriminator_steps >= 1, "discriminator_steps", "at least 1", self.discriminator_steps)
        require(self.average_half_life > 0, "average_half_life", "positive", self.average_half_life)
        require(self.average_rampup >= 0, "average_rampup", "at least 0", self.average_rampup)
        accuracy, clip, every = self.discriminator_warmup_accuracy, self.gradient_clip, self.score_every_n_images
        expected = "in (0.5, 1), 0.5 being chance, or null"
        require(accuracy is None or 0.5 < accuracy < 1, "discriminator_warmup_accuracy", expected, accuracy)
        expected = "null without a warm-up (discriminator_warmup=0)"
        require(accuracy is None or warmup != 0, "discriminator_warmup_accuracy", expected, accuracy)
        require(clip is None or clip > 0, "gradient_clip", "positive, or null", clip)
        check_batch_size(self.loader, self.trainer)
        batch_size = self.loader.batch_size
        expected = f"at least loader.batch_size={batch_size}, or null"
        require(every is None or every >= batch_size, "score_every_n_images", expected, every)
        local, parts = batch_size // (self.trainer.devices * self.trainer.num_nodes), self.gradient_accumulation
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
        self.discriminator_optimizer.lr = self.discriminator_optimizer.lr or (4e-3 if is_small else 3e-4)
        if self.discriminator_warmup is None:
            self.discriminator_warmup = min(LONGEST_WARMUP, num_images // 10)
        expected = f"less than the {num_images} images of the whole training"
        require(self.discriminator_warmup < num_images, "discriminator_warmup", expected, self.discriminator_warmup)

    def average_decay(self, num_images: int) -> float:
        """Share of the old moving average that one batch leaves, after so many images of the generator's training."""
        ramped = num_images * self.average_rampup if self.average_rampup else math.inf
        half_life = min(self.average_half_life, ramped)
        return 0.5 ** (self.loader.batch_size / half_life) if half_life else 0.0
