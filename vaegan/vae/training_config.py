"""Settings of VAE training."""

from __future__ import annotations

from dataclasses import dataclass, field

from vaegan.config import require
from vaegan.data.batches import LoaderConfig
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig, check_batch_size


@dataclass
class VAETraining:
    """Optimizer, batches and duration of VAE training."""

    # optimizer and learning-rate schedule
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=3e-3, lr_warmup=0.05, lr_final=0.0)
    )
    loader: LoaderConfig = field(default_factory=LoaderConfig)  # batches and data loading
    # Lightning trainer: duration, devices, precision
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)  # saving of checkpoints
    # validations without a better bound before training stops early, >= 1; null: no early stopping
    early_stopping_patience: int | None = 10

    def __post_init__(self) -> None:
        for key, values in {"lr": "positive", "beta1": "in [0, 1)"}.items():
            is_set = getattr(self.optimizer, key) is not None
            require(is_set, f"optimizer.{key}", values, None)
        patience = self.early_stopping_patience
        is_valid = patience is None or patience >= 1
        require(is_valid, "early_stopping_patience", "at least 1, or null", patience)
        check_batch_size(self.loader, self.trainer)

    def duration_dependent_settings(self) -> list[str]:
        """Return the settings whose effect depends on the duration of training, as "key=value"."""
        return [f"optimizer.{setting}" for setting in self.optimizer.duration_dependent_settings()]
