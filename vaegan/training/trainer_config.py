"""Configs of devices, durations and checkpoints. Nothing here imports Lightning."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan.config import require
from vaegan.data.batches import LoaderConfig

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass
class DeviceConfig:
    """Devices to run on: Lightning's options under Lightning's names."""

    accelerator: str = "auto"  # auto, cpu, gpu, mps
    devices: int = 1  # devices on each node
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # auto, ddp, ...
    precision: str = "32-true"  # 32-true, bf16-mixed, 16-mixed
    enable_progress_bar: bool = True

    def __post_init__(self) -> None:
        expected = f"one of {', '.join(PRECISIONS)}"
        require(self.precision in PRECISIONS, "precision", expected, self.precision)
        require(self.devices >= 1, "devices", "at least 1", self.devices)
        require(self.num_nodes >= 1, "num_nodes", "at least 1", self.num_nodes)


@dataclass
class TrainerConfig(DeviceConfig):
    """Devices and duration of a training: Lightning's options under Lightning's names."""

    max_epochs: int = 10  # passes over the training set
    limit_train_batches: float = 1.0  # fraction of each training epoch
    val_check_interval: float = 1.0  # epochs between validations, which log images; at most 1
    log_every_n_steps: int = 50  # batches between logged values
    skip_bad_steps: int = 0  # steps with a non-finite loss or gradient to skip before stopping

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("limit_train_batches", "val_check_interval"):
            value = getattr(self, key)
            require(0 < value <= 1, key, "in (0, 1]", value)
        for key in ("max_epochs", "log_every_n_steps"):
            value = getattr(self, key)
            require(value >= 1, key, "at least 1", value)
        require(self.skip_bad_steps >= 0, "skip_bad_steps", "at least 0", self.skip_bad_steps)


@dataclass
class CheckpointConfig:
    """Checkpoints to resume from (`resume`), in addition to the best one."""

    every_n_minutes: float | None = 5.0  # minutes between checkpoints; null: not by time
    every_n_images: int | None = None  # training images between checkpoints; null: not by images
    keep: int = 2  # number of newest checkpoints to keep

    def __post_init__(self) -> None:
        minutes = self.every_n_minutes
        images = self.every_n_images
        require(minutes is None or minutes > 0, "every_n_minutes", "positive, or null", minutes)
        require(images is None or images >= 1, "every_n_images", "at least 1, or null", images)
        require(self.keep >= 1, "keep", "at least 1", self.keep)


def check_batch_size(loader: LoaderConfig, trainer: TrainerConfig) -> None:
    """Check that the batch of all devices divides into equal parts.

    Raises:
        ValueError: It does not; the message has both numbers and the nearest size that does.
    """
    num_devices = trainer.devices * trainer.num_nodes
    nearest = max(1, round(loader.batch_size / num_devices)) * num_devices
    factors = "trainer.devices * trainer.num_nodes"
    expected = f"divisible by {factors} = {num_devices}, such as {nearest}"
    require(loader.batch_size % num_devices == 0, "loader.batch_size", expected, loader.batch_size)
