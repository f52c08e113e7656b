"""What a training run may set beside the model: optimizers, devices, durations. No Lightning here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from omegaconf import MISSING
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from vaegan.adversarial import AdversarialLoss, GradientPenalty
from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.nets.discriminators import Discriminator


@dataclass
class OptimizerConfig:
    """Adam, its learning rate rising linearly and then falling by half a cosine."""

    lr: float = 1e-3  # the highest learning rate
    beta1: float = 0.9  # decay of the gradient's mean
    beta2: float = 0.999  # decay of its square's
    lr_warmup: float = 0.0  # share of the training in which the learning rate rises from 0
    lr_final: float = 1.0  # the last learning rate, as a share of lr; 1 keeps it constant

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", "positive", self.lr)
        require(0 <= self.beta1 < 1, "beta1", "in [0, 1)", self.beta1)
        require(0 <= self.beta2 < 1, "beta2", "in [0, 1)", self.beta2)
        require(0 <= self.lr_warmup < 1, "lr_warmup", "in [0, 1)", self.lr_warmup)
        require(0 <= self.lr_final <= 1, "lr_final", "in [0, 1]", self.lr_final)

    def build(self, parameters: Iterable[nn.Parameter], num_steps: int) -> tuple[Adam, LambdaLR]:
        """Optimizer, and its learning-rate schedule over `num_steps` steps."""
        optimizer = Adam(parameters, self.lr, (self.beta1, self.beta2), fused=True)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor((step + 1) / max(1, num_steps)))

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

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_epochs >= 1, "max_epochs", "at least 1", self.max_epochs)
        require(0 < self.limit_train_batches <= 1, "limit_train_batches", "in (0, 1]", self.limit_train_batches)
        require(0 < self.val_check_interval <= 1, "val_check_interval", "in (0, 1]", self.val_check_interval)
        require(self.log_every_n_steps >= 1, "log_every_n_steps", "at least 1", self.log_every_n_steps)


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
    early_stopping_patience: int | None = 10  # validations without a better bound before the training ends; null: never

    def __post_init__(self) -> None:
        patience = self.early_stopping_patience
        require(patience is None or patience >= 1, "early_stopping_patience", "at least 1, or null", patience)
        check_batch_size(self.loader, self.trainer)


@dataclass
class GANConfig:
    """The discriminator and what the two players minimise. The generator comes from the VAE."""

    discriminator: Discriminator.Config = MISSING
    adversarial_loss: AdversarialLoss.Config = MISSING
    gradient_penalty: GradientPenalty.Config = MISSING


@dataclass
class GANTraining:
    """How the GAN is trained."""

    warm_start: bool = True  # generator from the VAE's decoder; false: the same generator with fresh weights
    discriminator_warmup: int = 12_800  # images in which only the discriminator learns, the generator frozen
    discriminator_steps: int = 1  # discriminator steps for each generator step
    average_half_life: float = 10_000.0  # images after which a generator's share in the moving average has halved
    generator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=5e-4, beta1=0.5, beta2=0.99)
    )
    discriminator_optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=5e-4, beta1=0.5, beta2=0.99)
    )
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(batch_size=64))
    trainer: TrainerConfig = field(default_factory=lambda: TrainerConfig(max_epochs=5, val_check_interval=0.5))

    def __post_init__(self) -> None:
        require(self.discriminator_warmup >= 0, "discriminator_warmup", "at least 0", self.discriminator_warmup)
        require(self.discriminator_steps >= 1, "discriminator_steps", "at least 1", self.discriminator_steps)
        require(self.average_half_life > 0, "average_half_life", "positive", self.average_half_life)
        check_batch_size(self.loader, self.trainer)
