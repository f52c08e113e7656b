"""Duration of training runs."""

import logging
from types import SimpleNamespace

import pytest

from vaegan.data.batches import LoaderConfig
from vaegan.training.duration import (
    FEW_STEPS,
    NUM_VALIDATIONS,
    log_duration,
    resolve_duration,
)
from vaegan.training.trainer_config import TrainerConfig


def data(num_images, batch_size, min_training_images=0):
    """Stand-in for a data module."""
    return SimpleNamespace(
        num_train_batches=num_images // batch_size,
        loader=LoaderConfig(batch_size=batch_size),
        source=SimpleNamespace(min_training_images=min_training_images),
    )


def test_the_default_is_five_epochs():
    duration = resolve_duration(TrainerConfig(), data(1000, 10))
    assert (duration.num_steps, duration.num_epochs, duration.val_interval) == (500, 5, None)


def test_a_small_set_of_natural_images_is_used_often():
    duration = resolve_duration(TrainerConfig(), data(100, 10, min_training_images=20_000))
    assert (duration.num_steps, duration.num_epochs) == (2000, None)
    assert duration.val_interval == 2000 // NUM_VALIDATIONS
    assert duration.epochs == 200


def test_a_large_set_of_natural_images_gets_five_epochs():
    duration = resolve_duration(TrainerConfig(), data(4000, 10, min_training_images=20_000))
    assert (duration.num_steps, duration.num_epochs) == (2000, 5)


def test_max_epochs_overrides_the_default_for_natural_images():
    config = TrainerConfig(max_epochs=2)
    duration = resolve_duration(config, data(100, 10, min_training_images=20_000))
    assert (duration.num_steps, duration.num_images) == (20, 200)


def test_max_images_takes_precedence_over_max_epochs():
    config = TrainerConfig(max_epochs=2, max_images=995)
    assert resolve_duration(config, data(100, 10)).num_steps == 100


@pytest.mark.parametrize("max_images, interval", [(995, 10), (30, 3), (10_000, 50)])
def test_a_validation_follows_each_epoch_but_at_most_20_in_all(max_images, interval):
    config = TrainerConfig(max_images=max_images)
    assert resolve_duration(config, data(100, 10)).val_interval == interval


def test_the_interval_between_scores_is_given_in_images():
    config = TrainerConfig(max_images=1000)
    assert resolve_duration(config, data(100, 10), score_every_n_images=255).val_interval == 25
    with pytest.raises(ValueError, match="score_every_n_images must be at most 1000"):
        resolve_duration(config, data(100, 10), score_every_n_images=1010)


@pytest.mark.parametrize("min_training_images", [0, 1000])
def test_an_epoch_of_one_batch_is_enough(min_training_images):
    config = TrainerConfig(val_check_interval=0.5)
    duration = resolve_duration(config, data(10, 10, min_training_images))
    assert duration.val_interval == (5 if min_training_images else 1)
    assert duration.num_steps == (100 if min_training_images else 5)


@pytest.mark.parametrize("key", ["max_epochs", "max_images"])
def test_durations_must_be_positive(key):
    with pytest.raises(ValueError, match=f"{key} must be at least 1, or null"):
        TrainerConfig(**{key: 0})


@pytest.mark.parametrize("max_images, is_warned", [(250, True), (FEW_STEPS * 10, False)])
def test_few_training_steps_are_warned_of(max_images, is_warned, caplog):
    duration = resolve_duration(TrainerConfig(max_images=max_images), data(100, 10))
    with caplog.at_level(logging.WARNING):
        log_duration(duration, "gan")
    assert bool(caplog.records) == is_warned
    if is_warned:
        message = caplog.records[0].getMessage()
        assert "gan: few training steps (25)" in message
        assert "for 500 steps, set trainer.max_images=5000 (in the pipeline gan" in message


def test_the_duration_is_logged(caplog):
    duration = resolve_duration(TrainerConfig(max_images=128_000), data(640, 64))
    with caplog.at_level(logging.INFO):
        log_duration(duration, "vae")
    message = caplog.records[0].getMessage()
    assert "vae: training for 128,000 images (steps: 2,000, batch size: 64, " in message
    assert "passes over the training set: 200)" in message
