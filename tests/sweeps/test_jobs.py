"""Jobs of a sweep, with a fake stage that returns or raises a given outcome."""

import math
import os
import sys
from dataclasses import dataclass

import pytest
import torch

from vaegan.runtime.paths import shell_command
from vaegan.runtime.program import with_program_name
from vaegan.runtime.signals import Interrupted
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES, Stage
from vaegan.sweeps.jobs import run_job
from vaegan.sweeps.outcome import OUTCOME_FILE, ConfigMismatch, Outcome, read_outcome
from vaegan.training.stage_result import StageResult


@dataclass
class FakeRun(RunConfig):
    """Config of the fake stage."""

    lr: float = 1.0
    sweep_metric: str = "val/elbo"

    def devices(self):
        return None


RESULT = [None]  # metrics to return, or exception to raise, in the fake stage


def run_fake_stage(run, output_dir):
    """Write a file, then return or raise RESULT."""
    (output_dir / "vae").mkdir()
    (output_dir / "vae" / "weights").write_text(str(run.lr))
    if isinstance(RESULT[0], BaseException):
        raise RESULT[0]
    return RESULT[0] and StageResult(output_dir / "vae", output_dir / "best.ckpt", RESULT[0])


@pytest.fixture(autouse=True)
def fake_stage(monkeypatch):
    monkeypatch.setitem(STAGES, "fake", Stage(FakeRun, f"{__name__}:run_fake_stage"))


def job(folder, result, **settings):
    """Run a job of the fake stage with a given result."""
    RESULT[0] = result
    return run_job(lambda: FakeRun(**settings), ["lr=1.0"], folder)


def test_job_returns_the_sweep_metric(tmp_path):
    metrics = {"val/elbo": -90.0, "test/elbo": -91.0, "test/kl": math.inf}
    assert job(tmp_path, metrics, sweep_metric="test/elbo") == -91.0
    outcome = read_outcome(tmp_path)
    assert (outcome.status, outcome.metric, outcome.value, outcome.error) == (
        "finished",
        "test/elbo",
        -91.0,
        None,
    )
    assert outcome.metrics == metrics | {"test/kl": None}
    assert outcome.overrides == ["lr=1.0"] and outcome.config["lr"] == 1.0


def test_finished_job_is_skipped(tmp_path, caplog):
    caplog.set_level("INFO")
    assert job(tmp_path, {"val/elbo": -90.0}) == -90.0
    assert job(tmp_path, RuntimeError("ran again")) == -90.0
    assert "skipped" in caplog.text and "val/elbo=-90.0" in caplog.text
    with pytest.raises(ConfigMismatch, match=r"lr=2.0 \(was 1.0\)"):
        job(tmp_path, {"val/elbo": -80.0}, lr=2.0)
    assert read_outcome(tmp_path).value == -90.0


@pytest.mark.parametrize("result", [None, {"val/elbo": math.nan}])
def test_job_without_a_finite_value_is_finished(tmp_path, result):
    assert job(tmp_path, result) is None
    assert read_outcome(tmp_path).status == "finished"
    assert job(tmp_path, RuntimeError("ran again")) is None


@pytest.mark.parametrize(
    "error, message, has_traceback",
    [
        (ValueError("lr must be small"), "lr must be small", False),
        (RuntimeError("out of memory"), "RuntimeError: out of memory", True),
    ],
)
def test_failed_job_records_its_error_and_returns_none(
    tmp_path, caplog, error, message, has_traceback
):
    assert job(tmp_path, error) is None
    outcome = read_outcome(tmp_path)
    assert (outcome.status, outcome.value, outcome.error) == ("failed", None, message)
    assert outcome.config["lr"] == 1.0 and outcome.metric == "val/elbo"
    (record,) = caplog.records
    assert message in record.getMessage() and bool(record.exc_info) == has_traceback


@pytest.mark.parametrize(
    "program, command",
    [("train.py", "uv run python train.py stage=vae"), ("vaegan", "uv run vaegan stage=vae")],
)
def test_message_of_a_failed_job_names_the_running_program(tmp_path, monkeypatch, program, command):
    monkeypatch.setenv("UV", "uv")
    monkeypatch.setattr(sys, "argv", [program])
    job(tmp_path, ValueError("to train a VAE: python train.py stage=vae"))
    assert read_outcome(tmp_path).error == f"to train a VAE: {command}"
    assert with_program_name(shell_command("python train.py stage=vae")) == command


def test_invalid_command_line_is_a_failed_job(tmp_path):
    def compose():
        raise ValueError("latent_dim must be at least 1; got 0")

    assert run_job(compose, ["latent_dim=0"], tmp_path) is None
    outcome = read_outcome(tmp_path)
    assert (outcome.status, outcome.overrides, outcome.config) == ("failed", ["latent_dim=0"], {})


@pytest.mark.parametrize(
    "exception, raised",
    [
        (Interrupted(15, "stopped"), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(143), SystemExit),
    ],
)
def test_signal_stops_the_sweep_without_an_outcome(tmp_path, exception, raised):
    with pytest.raises(raised) as caught:
        job(tmp_path, exception)
    assert getattr(caught.value, "code", 143) == 143
    assert not (tmp_path / OUTCOME_FILE).exists()


def test_files_of_unfinished_attempts_are_archived(tmp_path):
    (tmp_path / ".hydra").mkdir()
    assert job(tmp_path, RuntimeError("first")) is None
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, KeyboardInterrupt(), lr=2.0)
    assert job(tmp_path, {"val/elbo": -90.0}, lr=3.0) == -90.0
    folders = [tmp_path / name for name in ("attempt_1/vae", "attempt_2/vae", "vae")]
    assert [(folder / "weights").read_text() for folder in folders] == ["1.0", "2.0", "3.0"]
    assert (tmp_path / ".hydra").is_dir()


def test_signal_after_the_end_of_a_job_stops_the_sweep(tmp_path, monkeypatch):
    write = Outcome.write
    monkeypatch.setattr(
        Outcome, "write", lambda self, folder: (write(self, folder), os.kill(os.getpid(), 15))
    )
    with pytest.raises(SystemExit) as caught:
        job(tmp_path, {"val/elbo": -90.0})
    assert caught.value.code == 143 and read_outcome(tmp_path).status == "finished"


def test_lost_gpu_stops_the_sweep(tmp_path, monkeypatch, caplog):
    def synchronize():
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    folder = tmp_path / "0"
    folder.mkdir()
    with pytest.raises(SystemExit) as stop:
        job(folder, RuntimeError("CUDA error: device-side assert triggered"))
    assert stop.value.code == 1 and read_outcome(folder).status == "failed"
    assert f"repeat the command with hydra.sweep.dir={tmp_path}" in caplog.text
