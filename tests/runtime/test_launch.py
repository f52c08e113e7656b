"""Runs whose processes each do something else."""

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
    """Do what `actions` says for the rank of this process."""
    action = actions[int(os.environ.get("LOCAL_RANK", 0))]
    if isinstance(action, Exception):
        raise action
    if action == "wait":
        time.sleep(60)
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "listen":
        while not SIGNAL_STATE.signum:
            time.sleep(0.01)
        raise Interrupted(SIGNAL_STATE.signum, "stopped")
    return f"{action} at {os.environ.get('MASTER_ADDR')}"


def launch(*actions, num_nodes=1):
    """Launch one process per action."""
    return launch_module.launch(lambda: act(actions), len(actions), num_nodes, "train.py resume=x")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """As in a process that has computed nothing: these children use no threads."""
    monkeypatch.setattr(launch_module, "has_computed", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*")
        yield


def test_one_device_needs_no_other_process():
    assert launch("a") == "a at None"


def test_the_processes_of_a_run_are_counted_on_all_nodes():
    run = compose("stage=vae", "trainer.devices=2", "trainer.num_nodes=2")
    assert num_processes(run) == 4
    assert num_processes(compose("stage=compare", "runs=[a,b]")) == 1


def test_the_command_to_resume_quotes_the_run_folder(monkeypatch):
    arguments = []
    monkeypatch.delenv("UV", raising=False)  # under `uv run` the command starts with that
    monkeypatch.setattr("vaegan.stages.execute.launch", lambda *given: arguments.extend(given))
    execute(compose("stage=vae", "trainer.devices=2"), Path("my run"))
    assert arguments[1:] == [2, 1, "python train.py resume='my run'"]


def test_the_result_is_the_first_processs():
    assert launch("a", "b", "c") == "a at 127.0.0.1"


@pytest.mark.parametrize(
    "error", [ValueError("bad"), OSError("full"), ZeroDivisionError("bug")], ids=repr
)
def test_what_one_raises_is_raised_and_ends_the_others(error):
    begun = time.monotonic()
    with pytest.raises(type(error), match=str(error)) as caught:
        launch("wait", error)
    assert time.monotonic() - begun < 10
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert ("in process 2 of 2" in notes and "Traceback" in notes) == isinstance(
        error, ZeroDivisionError
    )


def test_a_process_that_dies_ends_the_others_and_is_named():
    begun = time.monotonic()
    message = "process 2 of 3 was ended by SIGKILL.*train.py resume=x"
    with pytest.raises(ChildProcessError, match=message):
        launch("wait", "die", RuntimeError("connection closed by peer"))
    assert time.monotonic() - begun < 10


def test_a_signal_is_passed_on():
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Interrupted, match="stopped"):
            launch("listen", "b")
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_several_nodes_want_a_starter():
    with pytest.raises(
        ValueError, match="trainer.num_nodes=2: start one process per device on each node"
    ):
        launch("a", "b", num_nodes=2)


def test_processes_from_outside_are_taken_as_they_are(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launch("a", "b", num_nodes=2) == "b at None"


def test_a_process_that_has_computed_starts_no_others():
    launch("a")
    with pytest.raises(
        ValueError, match="has already run on one device and cannot start workers for several"
    ):
        launch("a", "b")


@pytest.mark.slow
def test_torchrun_starts_them_in_one_folder(tmp_path):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        str(TRAIN),
        *SMALL_VAE,
    ]
    command += ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    run = {
        "cwd": tmp_path,
        "capture_output": True,
        "text": True,
        "env": os.environ | {"OMP_NUM_THREADS": "1"},
    }
    done = subprocess.run(command, **run)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs" / "vae").iterdir()
    assert json.loads((folder / "vae" / "result.json").read_text())["metrics"]
    assert (
        sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
        and (folder / ".hydra").is_dir()
    )
