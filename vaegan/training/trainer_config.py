"""Configs of devices, training duration and checkpoints. This module does not import Lightning."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan.config import require
from vaegan.data.batches import LoaderConfig

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass
class DeviceConfig:
    """Devices to run on, with the option names of Lightning's Trainer."""

    accelerator: str = "auto"  # device type: auto, cpu, gpu or mps
    devices: int = 1  # devices per node, >= 1
    num_nodes: int = 1  # number of machines, >= 1
    strategy: str = "auto"  # Lightning strategy, such as auto or ddp
    # floating-point precision of training steps: 32-true, bf16-mixed or 16-mixed; null: bf16-mixed
    # for natural images on a CPU with AMX, where it is faster, else 32-true
    precision: str | None = None
    enable_progress_bar: bool = True  # show a progress bar

    def __post_init__(self) -> None:
        expected = f"one of {', '.join(PRECISIONS)}, or null"
        is_known = self.precision in (None, *PRECISIONS)
        require(is_known, "precision", expected, self.precision)
        require(self.devices >= 1, "devices", "at least 1", self.devices)
        require(self.num_nodes >= 1, "num_nodes", "at least 1", self.num_nodes)


@dataclass
class TrainerConfig(DeviceConfig):
    """Devices and duration of training, with the option names of Lightning's Trainer."""

    # passes over the training set, >= 1; null: 5, or more if needed to process 128,000 natural
    # images
    max_epochs: int | None = None
    # number of training images to process, counting repeats, >= 1; null: use max_epochs
    max_images: int | None = None
    limit_train_batches: float = 1.0  # fraction of the batches to use in each epoch, in (0, 1]
    # fraction of an epoch between validations, which also log image grids, in (0, 1]; there are at
    # most 20 validations if the duration is a number of images
    val_check_interval: float = 1.0
    log_every_n_steps: int = 50  # batches between two logged training steps, >= 1
    # steps with a non-finite loss or gradient to skip before training is stopped, >= 0
    skip_bad_steps: int = 0
    # precision of float32 matrix products in training steps: highest, high (TF32 on a GPU) or
    # medium (bfloat16)
    matmul_precision: str = "highest"
    # time the convolution algorithms of a GPU for each new shape, and use the fastest
    benchmark: bool = False
    # use only deterministic operations, so that a GPU repeats and resumes runs bit for bit; slower
    deterministic: bool = False
    # compile the networks with torch.compile in training steps, which takes a minute or more at the
    # start; gradient penalties and evaluations stay uncompiled
    compile: bool = False
    # launch the kernels of a training step's forward and backward passes together as CUDA graphs,
    # which makes small networks faster; null: true on one NVIDIA GPU, except in 16-mixed or with a
    # strategy other than auto or ddp
    cuda_graphs: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("limit_train_batches", "val_check_interval"):
            value = getattr(self, key)
            require(0 < value <= 1, key, "in (0, 1]", value)
        for key in ("max_epochs", "max_images"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, "at least 1, or null", value)
        require(
            self.log_every_n_steps >= 1, "log_every_n_steps", "at least 1", self.log_every_n_steps
        )
        require(self.skip_bad_steps >= 0, "skip_bad_steps", "at least 0", self.skip_bad_steps)
        precision = self.matmul_precision
        expected = f"one of {', '.join(MATMUL_PRECISIONS)}"
        require(precision in MATMUL_PRECISIONS, "matmul_precision", expected, precision)
        expected = "false with deterministic=true, because timings choose the algorithms"
        is_valid = not (self.benchmark and self.deterministic)
        require(is_valid, "benchmark", expected, self.benchmark)
        if self.cuda_graphs:
            num_devices = self.devices * self.num_nodes
            expected = "1 with cuda_graphs=true"
            require(num_devices == 1, "devices and num_nodes", expected, num_devices)
            expected = "auto or ddp with cuda_graphs=true"
            require(self.strategy in ("auto", "ddp"), "strategy", expected, self.strategy)
            expected = "32-true or bf16-mixed with cuda_graphs=true"
            require(self.precision != "16-mixed", "precision", expected, self.precision)

    def uses_cuda_graphs(self, is_nvidia: bool) -> bool:
        """Return `cuda_graphs`, or its default on an NVIDIA GPU or on another device."""
        if self.cuda_graphs is not None:
            return self.cuda_graphs
        is_single = self.devices * self.num_nodes == 1
        is_plain = is_single and self.strategy in ("auto", "ddp")  # ddp on one device is auto
        return is_nvidia and is_plain and self.precision != "16-mixed"


@dataclass
class CheckpointConfig:
    """Checkpoints to resume training from, written in addition to the best one."""

    # minutes between resume checkpoints, > 0; null: no checkpoints by time
    every_n_minutes: float | None = 5.0
    # training images between resume checkpoints, >= 1; null: no checkpoints by number of images
    every_n_images: int | None = None
    keep: int = 2  # number of resume checkpoints to keep until the stage has finished, >= 1

    def __post_init__(self) -> None:
        minutes = self.every_n_minutes
        images = self.every_n_images
        require(minutes is None or minutes > 0, "every_n_minutes", "positive, or null", minutes)
        require(images is None or images >= 1, "every_n_images", "at least 1, or null", images)
        require(self.keep >= 1, "keep", "at least 1", self.keep)


def check_batch_size(loader: LoaderConfig, trainer: TrainerConfig) -> None:
    """Check that the batch size, if it is set, is divisible by the total number of devices.

    Raises:
        ValueError: The batch size is not divisible. The message suggests the nearest valid size.
    """
    if loader.batch_size is None:
        return
    num_devices = trainer.devices * trainer.num_nodes
    nearest = max(1, round(loader.batch_size / num_devices)) * num_devices
    factors = "trainer.devices * trainer.num_nodes"
    expected = f"divisible by {factors} = {num_devices}, such as {nearest}"
    require(loader.batch_size % num_devices == 0, "loader.batch_size", expected, loader.batch_size)
