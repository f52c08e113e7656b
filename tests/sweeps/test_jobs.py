"""Run one job of a sweep, with runs whose end is given."""

import math
import os
from dataclasses import dataclass

import pytest

from vaegan.runtime.signals import Interrupted
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES, Stage
from vaegan.sweeps.jobs import run_job
from vaegan.sweeps.outcome import FILE, ConfigMismatch, Outcome, read_outcome
from vaegan.training.stage_result import StageResult


@dataclass
class FakeRun(RunConfig):
    """The config of a stage that is `end_as_told`."""

    lr: float = 1.0
    sweep_metric: str = "val/elbo"

    def devices(self):
        return None


END = [None]  # what a run returns or raises


def end_as_told(run, output_dir):
    """Write a file, then end as END says."""
    (output_dir / "vae").mkdir()
    (output_dir / "vae" / "weights").write_text(str(run.lr))
    if isinstance(END[0], BaseException):
        raise END[0]
    return END[0] and StageResult(output_dir / "vae", output_dir / "best.ckpt", END[0])


@pytest.fixture(autouse=True)
def fake_stage(monkeypatch):
    monkeypatch.setitem(STAGES, "fake", Stage(FakeRun, f"{__name__}:end_as_told"))


def job(folder, end, **settings):
    END[0] = end
    return run_job(lambda: FakeRun(**settings), ["lr=1.0"], folder)


def test_the_value_is_that_of_the_metric_of_the_config(tmp_path):
    metrics = {"val/elbo": -90.0, "test/elbo": -91.0, "test/kl": math.inf}
    assert job(tmp_path, metrics, sweep_metric="test/elbo") == -91.0
    found = read_outcome(tmp_path)
    assert (found.status, found.metric, found.value, found.error) == (
        "finished",
        "test/elbo",
        -91.0,
        None,
    )
    assert found.metrics == metrics | {"test/kl": None}
    assert found.overrides == ["lr=1.0"] and found.config["lr"] == 1.0


def test_a_finished_job_is_skipped_and_the_log_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    assert job(tmp_path, {"val/elbo": -90.0}) == -90.0
    assert job(tmp_path, RuntimeError("ran again")) == -90.0
    assert "skipped" in caplog.text and "val/elbo=-90.0" in caplog.text
    with pytest.raises(ConfigMismatch, match=r"lr=2.0 \(was 1.0\)"):
        job(tmp_path, {"val/elbo": -80.0}, lr=2.0)
    assert read_outcome(tmp_path).value == -90.0


@pytest.mark.parametrize("end, value", [(None, None), ({"val/elbo": math.nan}, None)])
def test_where_there_is_no_value_the_job_is_finished_all_the_same(tmp_path, end, value):
    assert job(tmp_path, end) is value
    assert read_outcome(tmp_path).status == "finished"
    assert job(tmp_path, RuntimeError("ran again")) is value


@pytest.mark.parametrize(
    "error, message, has_traceback",
    [
        (ValueError("lr must be small"), "lr must be small", False),
        (RuntimeError("out of memory"), "RuntimeError: out of memory", True),
    ],
)
def test_a_failed_job_leaves_its_message_and_its_value_is_none(
    tmp_path, caplog, error, message, has_traceback
):
    assert job(tmp_path, error) is None
    found = read_outcome(tmp_path)
    assert (found.status, found.value, found.error) == ("failed", None, message)
    assert found.config["lr"] == 1.0 and found.metric == "val/elbo"
    (record,) = caplog.records
    assert message in record.getMessage() and bool(record.exc_info) == has_traceback


def test_a_command_that_is_refused_is_a_failed_job(tmp_path):
    def refuse():
        raise ValueError("latent_dim must be at least 1; got 0")

    assert run_job(refuse, ["latent_dim=0"], tmp_path) is None
    found = read_outcome(tmp_path)
    assert (found.status, found.overrides, found.config) == ("failed", ["latent_dim=0"], {})


@pytest.mark.parametrize(
    "end, raised",
    [
        (Interrupted(15, "ended"), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(143), SystemExit),
    ],
)
def test_a_signal_ends_the_sweep_and_the_job_counts_as_never_run(tmp_path, end, raised):
    with pytest.raises(raised) as caught:
        job(tmp_path, end)
    assert getattr(caught.value, "code", 143) == 143
    assert not (tmp_path / FILE).exists()


def test_what_an_unfinished_attempt_left_is_archived(tmp_path):
    (tmp_path / ".hydra").mkdir()
    assert job(tmp_path, RuntimeError("first")) is None
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path, KeyboardInterrupt(), lr=2.0)
    assert job(tmp_path, {"val/elbo": -90.0}, lr=3.0) == -90.0
    places = ("attempt_1/vae", "attempt_2/vae", "vae")
    assert [(tmp_path / place / "weights").read_text() for place in places] == ["1.0", "2.0", "3.0"]
    assert (tmp_path / ".hydra").is_dir()


def test_a_signal_at_the_very_end_of_a_job_ends_the_sweep_too(tmp_path, monkeypatch):
    write = Outcome.write
    monkeypatch.setattr(
        Outcome, "write", lambda self, folder: (write(self, folder), os.kill(os.getpid(), 15))
    )
    with pytest.raises(SystemExit) as caught:
        job(tmp_path, {"val/elbo": -90.0})
    assert caught.value.code == 143 and read_outcome(tmp_path).status == "finished"
