"""What a training run may set beside the model: optimizers, devices, durations. No Lightning here."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan.config import require
from vaegan.data.batches import LoaderConfig


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
        require(
            self.precision in precisions,
            "precision",
            f"one of {', '.join(precisions)}",
            self.precision,
        )
        require(self.devices >= 1, "devices", "at least 1", self.devices)
        require(self.num_nodes >= 1, "num_nodes", "at least 1", self.num_nodes)


@dataclass
class TrainerConfig(DeviceConfig):
    """Where and how long to train: Lightning's options under Lightning's names."""

    max_epochs: int = 10  # passes over the training set
    limit_train_batches: float = 1.0  # share of each training epoch
    val_check_interval: float = (
        1.0  # epochs from one validation, with its pictures, to the next; at most 1
    )
    log_every_n_steps: int = 50  # batches from one logged value to the next
    skip_bad_steps: int = (
        0  # steps with a loss or gradient that is not finite, left out before the training ends
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.max_epochs >= 1, "max_epochs", "at least 1", self.max_epochs)
        require(
            0 < self.limit_train_batches <= 1,
            "limit_train_batches",
            "in (0, 1]",
            self.limit_train_batches,
        )
        require(
            0 < self.val_check_interval <= 1,
            "val_check_interval",
            "in (0, 1]",
            self.val_check_interval,
        )
        require(
            self.log_every_n_steps >= 1, "log_every_n_steps", "at least 1", self.log_every_n_steps
        )
        require(self.skip_bad_steps >= 0, "skip_bad_steps", "at least 0", self.skip_bad_steps)


@dataclass
class CheckpointConfig:
    """Checkpoints to go on from (`resume`), beside the best one."""

    every_n_minutes: float | None = 5.0  # from one to the next; null: not by time
    every_n_images: int | None = (
        None  # training images from one to the next; null: not by their number
    )
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
    expected = (
        f"divisible by trainer.devices * trainer.num_nodes = {num_devices}, such as {nearest}"
    )
    require(loader.batch_size % num_devices == 0, "loader.batch_size", expected, loader.batch_size)
