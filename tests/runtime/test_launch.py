"""Tests of launching and supervising worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tests.conftest import SMALL_VAE, TRAIN, compose
from vaegan.runtime import launch as launch_module
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted
from vaegan.stages.execute import execute, num_processes


def act(actions):
    """Perform the action of this process's rank."""
    action = actions[int(os.environ.get("LOCAL_RANK", 0))]
    if isinstance(action, BaseException):
        raise action
    if action == "wait":
        time.sleep(60)
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "wait for signal":
        while not SIGNAL_STATE.signum:
            time.sleep(0.01)
        raise Interrupted(SIGNAL_STATE.signum, "stopped")
    return f"{action} at {os.environ.get('MASTER_ADDR')}"


def launch(*actions, num_nodes=1):
    """Launch one process per action."""
    return launch_module.launch(lambda: act(actions), len(actions), num_nodes, "train.py resume=x")


@pytest.fixture(autouse=True)
def allow_forks(monkeypatch):
    """Reset `has_computed`: the children of these tests use no threads."""
    monkeypatch.setattr(launch_module, "has_computed", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*")
        yield


def test_one_device_runs_in_this_process():
    assert launch("a") == "a at None"


def test_num_processes_counts_all_nodes():
    run = compose("stage=vae", "trainer.devices=2", "trainer.num_nodes=2")
    assert num_processes(run) == 4
    assert num_processes(compose("stage=compare", "runs=[a,b]")) == 1


def test_resume_command_quotes_the_run_folder(monkeypatch):
    arguments = []
    monkeypatch.delenv("UV", raising=False)  # set by `uv run`, which changes the command
    monkeypatch.setattr("vaegan.stages.execute.launch", lambda *values: arguments.extend(values))
    execute(compose("stage=vae", "trainer.devices=2"), Path("my run"))
    assert arguments[1:] == [2, 1, "python train.py resume='my run'"]


def test_result_is_that_of_rank_zero():
    assert launch("a", "b", "c") == "a at 127.0.0.1"


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError("full"), ZeroDivisionError("bug")], ids=repr
)
def test_worker_error_is_raised_and_stops_the_other_workers(error):
    start = time.monotonic()
    with pytest.raises(type(error), match=str(error)) as caught:
        launch("wait", error)
    assert time.monotonic() - start < 10
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("in process 2 of 2" in notes and "Traceback" in notes) == isinstance(
        error, ZeroDivisionError
    )


def test_dead_worker_is_named_and_the_others_are_stopped():
    start = time.monotonic()
    message = "process 2 of 3 was killed by SIGKILL.*train.py resume=x"
    with pytest.raises(ChildProcessError, match=message):
        launch("wait", "die", RuntimeError("connection closed by peer"))
    assert time.monotonic() - start < 10


def test_signals_are_forwarded_to_the_workers():
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Interrupted, match="stopped"):
            launch("wait for signal", "b")
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_signal_of_one_worker_stops_the_others():
    start = time.monotonic()
    with pytest.raises(Interrupted, match="by its scheduler"):
        launch("wait for signal", Interrupted(15, "by its scheduler"), "wait for signal")
    assert time.monotonic() - start < 10


def test_several_nodes_need_a_launcher():
    with pytest.raises(
        ValueError, match="trainer.num_nodes=2: start one process per device on each node"
    ):
        launch("a", "b", num_nodes=2)


def test_externally_started_processes_are_used(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch("a", "b", num_nodes=2) == "b at None"


def test_no_workers_start_after_a_run_in_this_process():
    launch("a")
    with pytest.raises(
        ValueError, match="has already run on one device and cannot start workers for several"
    ):
        launch("a", "b")


@pytest.mark.slow
def test_torchrun_processes_share_one_run_folder(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        str(TRAIN),
        *SMALL_VAE,
    ]
    command += ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    options = {
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "env": os.environ | {"OMP_NUM_THREADS": "1"},
    }
    completed = subprocess.run(command, **options)
    assert completed.returncode == 0, completed.stderr
    (folder,) = (tmp_path / "outputs" / "vae").iterdir()
    assert json.loads((folder / "vae" / "result.json").read_text())["metrics"]
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
        and (folder / ".hydra").is_dir()
    )
