"""Settings of VAE training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig, check_batch_size

T = TypeVar("T", bound="VAETraining")

DEFAULT_BATCH_SIZE, DEFAULT_LR = 128, 3e-3
# Chosen on clip art. On a CPU, training takes as long as in batches of 128.
NATURAL_BATCH_SIZE, NATURAL_LR = 32, 1e-3


@dataclass
class VAETraining:
    """Optimizer, batches and duration of VAE training."""

    # optimizer and learning-rate schedule
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=None, lr_warmup=0.05, lr_final=0.0)
    )
    loader: LoaderConfig = field(default_factory=LoaderConfig)  # batches and data loading
    # Lightning trainer: duration, devices, precision
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)  # saving of checkpoints
    # validations without a better bound before training stops early, >= 1; null: no early stopping
    early_stopping_patience: int | None = 10

    def __post_init__(self) -> None:
        beta1 = self.optimizer.beta1
        require(beta1 is not None, "optimizer.beta1", "in [0, 1)", beta1)
        patience = self.early_stopping_patience
        is_valid = patience is None or patience >= 1
        require(is_valid, "early_stopping_patience", "at least 1, or null", patience)
        check_batch_size(self.loader, self.trainer)

    def duration_dependent_settings(self) -> list[str]:
        """Return the settings whose effect depends on the duration of training, as "key=value"."""
        return [f"optimizer.{setting}" for setting in self.optimizer.duration_dependent_settings()]


def resolve_data_defaults(
    training: T, is_natural: bool, earlier: Mapping[str, Any] | None = None
) -> T:
    """Return the config with the null values of `batch_size` and `lr` replaced by numbers.

    Args:
        training: Config to resolve; it is not modified.
        is_natural: True for natural images (`ImageSource.IS_NATURAL`).
        earlier: Plain run of the training so far, whose values are kept; None: it has not begun.

    Raises:
        ValueError: The batch size is not divisible by the number of devices.
    """
    batch_size = NATURAL_BATCH_SIZE if is_natural else DEFAULT_BATCH_SIZE
    lr = NATURAL_LR if is_natural else DEFAULT_LR
    if earlier is not None:
        batch_size, lr = earlier["loader"]["batch_size"], earlier["optimizer"]["lr"]
    loader, optimizer = training.loader, training.optimizer
    if loader.batch_size is None:
        loader = replace(loader, batch_size=batch_size)
        check_batch_size(loader, training.trainer)
    if optimizer.lr is None:
        optimizer = replace(optimizer, lr=lr)
    return replace(training, loader=loader, optimizer=optimizer)
