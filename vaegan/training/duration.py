"""Duration of a training run and interval between its validations."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from vaegan.config import require
from vaegan.data.datamodule import ImageDataModule
from vaegan.training.trainer_config import TrainerConfig

DEFAULT_EPOCHS = 5
NUM_VALIDATIONS = 20  # largest number of validations if the duration is a number of images
FEW_STEPS = 500  # training steps below which a warning is logged

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Duration:
    """Number of training steps, and of steps between validations.

    A step uses one batch of `batch_size` real images over all devices.
    """

    num_steps: int
    steps_per_epoch: int
    batch_size: int
    # number of epochs if the duration is a number of epochs; None if it is a number of images
    num_epochs: int | None
    # steps between validations, counted across epochs; None: use trainer.val_check_interval
    val_interval: int | None

    @property
    def num_images(self) -> int:
        """Number of training images, counting repeats."""
        return self.images_after(self.num_steps)

    def images_after(self, num_steps: int) -> int:
        """Return the number of training images in a number of steps, counting repeats."""
        return num_steps * self.batch_size

    @property
    def log_interval(self) -> int:
        """Largest interval between logged steps with a logged step before each validation."""
        return self.val_interval or self.steps_per_epoch

    @property
    def epochs(self) -> float:
        """Number of passes over the training set."""
        return self.num_steps / self.steps_per_epoch

    def ends_with_validation(self, config: TrainerConfig) -> bool:
        """True if training needs no additional validation at its end."""
        if self.val_interval is not None:
            return ends_near_validation(self.num_steps, self.val_interval)
        interval = max(1, int(self.steps_per_epoch * config.val_check_interval))
        return ends_near_validation(self.steps_per_epoch, interval)

    def trainer_options(self, config: TrainerConfig) -> dict[str, Any]:
        """Return the arguments of Lightning's Trainer."""
        options: dict[str, Any] = {"limit_train_batches": config.limit_train_batches}
        if self.num_epochs is None:
            options |= {"max_epochs": -1, "max_steps": self.num_steps}
        else:
            options |= {"max_epochs": self.num_epochs}
        if self.val_interval is None:
            return options | {"val_check_interval": config.val_check_interval}
        # None makes Lightning count the batches across epochs.
        return options | {
            "val_check_interval": self.val_interval,
            "check_val_every_n_epoch": None,
        }


def ends_near_validation(num_steps: int, interval: int) -> bool:
    """True if the last validation was at most a tenth of the interval ago."""
    return num_steps % interval <= interval // 10


def resolve_duration(
    config: TrainerConfig, data: ImageDataModule, score_every_n_images: int | None = None
) -> Duration:
    """Return the duration of a training run on a data set.

    Args:
        config: Settings; `max_images` takes precedence over `max_epochs`. If both are None, there
            are `DEFAULT_EPOCHS` epochs, but at least the data set's `min_training_images`.
        data: Data set.
        score_every_n_images: Training images between validations; None: a default.

    Raises:
        ValueError: There is less than one batch in an epoch, or training ends before the first
            score.
    """
    check_batches(config, data)
    batch_size = data.loader.images_per_step
    steps_per_epoch = int(data.num_train_batches * config.limit_train_batches)
    num_images, num_epochs = config.max_images, config.max_epochs
    if num_images is None and num_epochs is None:
        num_epochs = DEFAULT_EPOCHS
        if num_epochs * steps_per_epoch * batch_size < data.source.min_training_images:
            num_images = data.source.min_training_images
    val_interval: int | None
    if num_images is not None:
        num_steps, num_epochs = math.ceil(num_images / batch_size), None
        default_interval = min(num_steps, int(steps_per_epoch * config.val_check_interval))
        val_interval = max(1, num_steps // NUM_VALIDATIONS, default_interval)
    else:
        assert num_epochs is not None
        num_steps = num_epochs * steps_per_epoch
        # At least one batch precedes a validation, even if an epoch is a single batch.
        val_interval = None if steps_per_epoch * config.val_check_interval >= 1 else 1
    if score_every_n_images is not None:
        total = num_steps * batch_size
        expected = f"at most {total}, the number of images seen in training, or null"
        is_valid = score_every_n_images <= total
        require(is_valid, "score_every_n_images", expected, score_every_n_images)
        val_interval = score_every_n_images // batch_size
    return Duration(num_steps, steps_per_epoch, batch_size, num_epochs, val_interval)


def check_batches(config: TrainerConfig, data: ImageDataModule) -> None:
    """Check that an epoch has at least one batch.

    Raises:
        ValueError: `limit_train_batches` is too small.
    """
    fraction = config.limit_train_batches
    expected = f"large enough to keep one of the {data.num_train_batches} training batches"
    is_valid = data.num_train_batches * fraction >= 1
    require(is_valid, "trainer.limit_train_batches", expected, fraction)


def log_duration(duration: Duration, stage: str) -> None:
    """Log the duration of a training run, with a warning if its images will be poor."""
    log.info(
        "%s: training for %s images (steps: %s, batch size: %d, passes over the training set: "
        "%.3g); to change this, set %s",
        stage,
        f"{duration.num_images:,}",
        f"{duration.num_steps:,}",
        duration.batch_size,
        duration.epochs,
        duration_setting(stage, "N"),
    )
    if duration.num_steps < FEW_STEPS:
        log.warning(
            "%s: few training steps (%d), so expect poor images; for %d steps, set %s",
            stage,
            duration.num_steps,
            FEW_STEPS,
            duration_setting(stage, FEW_STEPS * duration.batch_size),
        )


def duration_setting(stage: str, num_images: int | str) -> str:
    """Return the settings that determine the duration of a stage, as typed by the user."""
    return f"trainer.max_images={num_images} (in the pipeline {stage}.trainer.max_images)"
