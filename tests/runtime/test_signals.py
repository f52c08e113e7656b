import os
import signal
import threading

import pytest

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, catch_signals, requeue


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_is_noted_and_all_is_as_before_afterwards(signum, capfd):
    before = signal.getsignal(signum)
    with catch_signals():
        assert not SIGNAL_STATE.signum
        os.kill(os.getpid(), signum)
        assert SIGNAL_STATE.signum == signum
        with catch_signals():
            assert SIGNAL_STATE.signum == signum
    assert signal.getsignal(signum) == before
    assert f"{signum.name}: stopping in order after the current batch" in capfd.readouterr().err


def test_a_handler_of_a_launcher_stays(monkeypatch):
    taken = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        before = signal.getsignal(signal.SIGUSR2)
        with catch_signals():
            assert signal.getsignal(signal.SIGUSR2) is before
    finally:
        signal.signal(signal.SIGUSR2, taken)


def test_threads_get_no_signals():
    def listen():
        with catch_signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_exit_status_is_that_of_a_shell():
    assert Interrupted(15, "ended").status == 143 and str(Interrupted(15, "ended")) == "ended"


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """What SLURM was told."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "told"


@pytest.mark.parametrize(
    "array, expected", [({}, "17"), ({"ARRAY_JOB_ID": "16", "ARRAY_TASK_ID": "3"}, "16_3")]
)
def test_slurm_is_told_to_start_the_job_anew(scontrol, monkeypatch, array, expected):
    for name, value in {"JOB_ID": "17", **array}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    requeue()
    assert scontrol.read_text() == f"requeue {expected}\n"


@pytest.mark.parametrize("job", ["", "1; rm -rf x", "x"])
def test_nothing_else_is_told(scontrol, monkeypatch, job):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    requeue()
    assert not scontrol.exists()


def test_a_slurm_that_is_not_there_is_said(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", "/nowhere")
    requeue()
    assert "SLURM job 17 could not be requeued" in caplog.text
