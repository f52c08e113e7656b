"""Progress lines of a training run in the log."""

import time
from types import SimpleNamespace

import pytest
import torch

from vaegan.training import progress_bar
from vaegan.training.progress_bar import FIRST_LINE_BATCHES, ProgressLog, is_bar_shown


def make_trainer(num_done, metrics):
    """Return what the callback reads of a trainer, after some of 4 x 10 batches."""
    batch_progress = SimpleNamespace(total=SimpleNamespace(completed=num_done))
    return SimpleNamespace(
        callback_metrics={tag: torch.tensor(value) for tag, value in metrics.items()},
        current_epoch=num_done // 10,
        max_epochs=4,
        estimated_stepping_batches=40,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=batch_progress)),
    )


@pytest.fixture
def now(monkeypatch, caplog):
    """Return a list with the time in seconds, which tests change."""
    caplog.set_level("INFO")
    time_now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: time_now[0])
    return time_now


def test_each_validation_writes_a_line_with_all_metrics_and_the_time(now, caplog):
    callback = ProgressLog("gan")
    long_tag = "val/a_metric_with_a_long_name_" + "x" * 100
    callback.on_validation_end(make_trainer(0, {"val/kl": 25.0}), None)
    callback.on_train_start(make_trainer(0, {}), None)
    now[0] += 60
    metrics = {"val/frechet_distance": 1.25, long_tag: -1e-7, "train/loss": 3.0}
    callback.on_validation_end(make_trainer(15, metrics), None)
    assert caplog.messages == [
        "gan: before training; val/kl=25",
        "gan: epoch 2 of 4, batch 15 of 40, 0:01:00, about 0:01:40 left; "
        f"val/frechet_distance=1.25, {long_tag}=-1e-07",
    ]


def test_time_left_of_a_resumed_run_counts_its_own_batches(now, caplog):
    callback = ProgressLog("vae")
    callback.on_train_start(make_trainer(20, {}), None)
    now[0] += 10
    callback.on_validation_end(make_trainer(30, {"val/elbo": -1.0}), None)
    assert "batch 30 of 40, 0:00:10, about 0:00:10 left" in caplog.text


def test_long_epoch_writes_lines_between_validations(now, caplog):
    callback = ProgressLog("vae")
    callback.on_train_start(make_trainer(0, {}), None)
    for num_done in range(1, 10):
        now[0] += 100
        callback.on_train_batch_end(make_trainer(num_done, {"train/loss": 2.0}))
    assert len(caplog.messages) == 2 and "train/loss=2" in caplog.messages[0]


def test_the_first_line_estimates_the_time_left(now, caplog):
    callback = ProgressLog("vae")
    callback.on_train_start(make_trainer(0, {}), None)
    for num_done in range(1, FIRST_LINE_BATCHES + 5):
        now[0] += 1
        callback.on_train_batch_end(make_trainer(num_done, {}))
    assert caplog.messages == ["vae: epoch 4 of 4, batch 30 of 40, 0:00:30, about 0:00:10 left"]


@pytest.mark.parametrize("is_interactive", [True, False])
def test_bar_is_shown_only_in_a_terminal(monkeypatch, is_interactive):
    console = SimpleNamespace(is_interactive=is_interactive)
    monkeypatch.setattr(progress_bar, "Console", lambda: console)
    assert is_bar_shown(True) == is_interactive and not is_bar_shown(False)


def test_dumb_terminal_has_no_bar(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes the output for a terminal
    assert not is_bar_shown(True)
