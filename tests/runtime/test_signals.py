import os
import signal
import threading
import time

import pytest

from vaegan.runtime.signals import (
    SCHEDULER_SIGNALS,
    SIGNAL_STATE,
    TERMINATION_SIGNALS,
    Interrupted,
    catch_signals,
    deferred_signals,
    interruptible,
    requeue,
)

SIGNALS = [*TERMINATION_SIGNALS, *SCHEDULER_SIGNALS]


def test_every_signal_that_users_and_schedulers_send_is_caught():
    names = {signum.name for signum in SIGNALS}
    assert names >= {"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU"}


@pytest.mark.parametrize("signum", SIGNALS)
def test_signal_raises_at_once_where_nothing_has_to_be_finished(signum, capfd):
    with pytest.raises(Interrupted) as caught, catch_signals(), interruptible():
        os.kill(os.getpid(), signum)
        time.sleep(5)
    assert caught.value.status == 128 + signum
    assert f"{signum.name}: stopping" in capfd.readouterr().err


def test_deferred_signal_raises_at_the_end():
    reached = False
    with pytest.raises(Interrupted), catch_signals(), interruptible(), deferred_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        reached = True
    assert reached and not SIGNAL_STATE.is_immediate


def test_signal_before_an_interruptible_part_raises():
    with catch_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted), interruptible():
            pass


def test_interruption_is_not_taken_for_an_error_of_an_image():
    assert not issubclass(Interrupted, Exception)


def test_hang_up_stays_ignored_under_nohup():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not SIGNAL_STATE.signum
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_signal_is_handled_without_a_terminal(monkeypatch):
    def fail(*_):
        raise OSError("the terminal is gone")

    monkeypatch.setattr(os, "write", fail)
    with catch_signals():
        os.kill(os.getpid(), signal.SIGHUP)
        assert SIGNAL_STATE.signum == signal.SIGHUP


@pytest.mark.parametrize("signum", SIGNALS)
def test_signal_is_recorded_and_handlers_are_restored(signum, capfd):
    before = signal.getsignal(signum)
    with catch_signals():
        assert not SIGNAL_STATE.signum
        os.kill(os.getpid(), signum)
        assert SIGNAL_STATE.signum == signum
        with catch_signals():
            assert SIGNAL_STATE.signum == signum
    assert signal.getsignal(signum) == before
    assert f"{signum.name}: finishing the current batch, then stopping" in capfd.readouterr().err


def test_handler_of_a_launcher_is_kept(monkeypatch):
    previous = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        before = signal.getsignal(signal.SIGUSR2)
        with catch_signals():
            assert signal.getsignal(signal.SIGUSR2) is before
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_catch_signals_does_nothing_in_other_threads():
    def record_handler():
        with catch_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=record_handler)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_exit_status_follows_the_shell_convention():
    assert Interrupted(15, "ended").status == 143 and str(Interrupted(15, "ended")) == "ended"


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Put a fake scontrol on the path; return the file with its arguments."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "arguments"


@pytest.mark.parametrize(
    "array, expected", [({}, "17"), ({"ARRAY_JOB_ID": "16", "ARRAY_TASK_ID": "3"}, "16_3")]
)
def test_requeue_calls_scontrol_with_the_job_id(scontrol, monkeypatch, array, expected):
    for name, value in {"JOB_ID": "17", **array}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    requeue()
    assert scontrol.read_text() == f"requeue {expected}\n"


@pytest.mark.parametrize("job", ["", "1; rm -rf x", "x"])
def test_invalid_job_ids_are_not_requeued(scontrol, monkeypatch, job):
    monkeypatch.setenv("SLURM_JOB_ID", job)
    requeue()
    assert not scontrol.exists()


def test_missing_scontrol_logs_a_warning(monkeypatch, caplog):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("PATH", "/nowhere")
    requeue()
    assert "SLURM job 17 could not be requeued" in caplog.text


def test_hanging_scontrol_does_not_hang_the_run(scontrol, monkeypatch, caplog):
    program = scontrol.with_name("scontrol")
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("vaegan.runtime.signals.SECONDS_TO_REQUEUE", 0.1)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    requeue()
    assert "SLURM job 17 could not be requeued" in caplog.text
