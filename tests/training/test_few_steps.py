"""The warning of a training that is too short to give good images."""

import logging
from types import SimpleNamespace

import pytest

from vaegan.training.fit import FEW_STEPS, warn_of_few_steps
from vaegan.training.trainer_config import TrainerConfig


@pytest.mark.parametrize("max_epochs, batches, is_warned", [(5, 5, True), (100, 5, False)])
def test_few_training_steps_are_warned_of(max_epochs, batches, is_warned, caplog):
    config = TrainerConfig(max_epochs=max_epochs)
    with caplog.at_level(logging.WARNING):
        warn_of_few_steps(config, SimpleNamespace(num_train_batches=batches), "gan")
    assert bool(caplog.records) == is_warned
    if is_warned:
        message = caplog.records[0].getMessage()
        assert "gan: only 25 training steps (5 epochs of 5 batches)" in message
        assert "trainer.max_epochs=100 (in the pipeline gan.trainer.max_epochs)" in message


def test_the_suggested_duration_is_long_enough(caplog):
    config = TrainerConfig(max_epochs=2, limit_train_batches=0.5)
    warn_of_few_steps(config, SimpleNamespace(num_train_batches=7), "vae")
    suggested = int(caplog.records[0].getMessage().split("trainer.max_epochs=")[1].split()[0])
    assert suggested * 7 * 0.5 >= FEW_STEPS
