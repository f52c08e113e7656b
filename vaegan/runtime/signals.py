"""Termination signals: stop at once, or at the next batch boundary while a network is trained.

`catch_signals` records the first signal. Inside `interruptible` a signal raises `Interrupted` at
once, as Ctrl-C raises KeyboardInterrupt. Inside `deferred_signals` it is only recorded, and the
training loop acts on it between two batches.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


def existing_signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals that exist on this system; Windows has only a few."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


TERMINATION_SIGNALS = existing_signals("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGBREAK")
# Sent by schedulers before a time limit (SLURM, SGE), by `ulimit -t`, timers and power supplies.
SCHEDULER_SIGNALS = existing_signals("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM", "SIGPWR")
REQUEUE_SIGNALS = existing_signals("SIGUSR1")  # a run ended by this signal is requeued in SLURM
SECONDS_TO_VALIDATE = 10.0  # time that a validation during training has to finish after a signal
SECONDS_TO_REQUEUE = 30.0  # time limit of `scontrol requeue`
HANG_UP_SIGNALS = existing_signals("SIGHUP")  # stays ignored under nohup


class Interrupted(BaseException):
    """Raised to end a run after a signal. Like KeyboardInterrupt, it is not an `Exception`.

    Args:
        signum: Number of the signal.
        message: Message for the user.
        has_command: True if the message contains the command that resumes the run.
    """

    def __init__(self, signum: int, message: str, has_command: bool = False) -> None:
        super().__init__(signum, message, has_command)
        self.signum = signum
        self.message = message
        self.has_command = has_command

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """Exit status by shell convention: 128 + signal number."""
        return 128 + self.signum


class SignalState:
    """Signal that this process has received, and state of the signal handling."""

    signum = 0  # 0: no signal received
    received_at = math.inf  # time of the signal, in seconds of `time.monotonic`
    is_catching = False  # True inside `catch_signals`
    is_immediate = False  # True inside `interruptible`: a signal raises `Interrupted` at once
    is_worker = False  # True if the parent process informs the user and forwards signals
    previous_handlers: Mapping[signal.Signals, Any] = {}


SIGNAL_STATE = SignalState()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Record the first termination signal in `SIGNAL_STATE`; a second Ctrl-C aborts at once.

    Does nothing if nested, or outside the main thread: other threads receive no signals.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if SIGNAL_STATE.is_catching or not is_main_thread:
        yield
        return
    owner_pid = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner_pid:  # a forked child
            return
        if not SIGNAL_STATE.signum:
            SIGNAL_STATE.signum = signum
            SIGNAL_STATE.received_at = time.monotonic()
            if not SIGNAL_STATE.is_worker:
                announce(signum)
            if SIGNAL_STATE.is_immediate:
                raise Interrupted(signum, "stopped")
        elif signum == signal.SIGINT and not SIGNAL_STATE.is_worker:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)

    SIGNAL_STATE.signum = 0
    SIGNAL_STATE.received_at = math.inf
    SIGNAL_STATE.is_catching = True
    previous_handlers = {signum: signal.signal(signum, handle) for signum in signals_to_catch()}
    SIGNAL_STATE.previous_handlers = previous_handlers
    try:
        yield
    finally:
        SIGNAL_STATE.is_catching = False
        SIGNAL_STATE.signum = 0
        SIGNAL_STATE.received_at = math.inf
        for signum, handler in previous_handlers.items():
            signal.signal(signum, handler)


def signals_to_catch() -> list[signal.Signals]:
    """Return the signals to catch, except those that a launcher handles and SIGHUP under nohup."""
    signums = list(TERMINATION_SIGNALS)
    for signum in HANG_UP_SIGNALS:
        if signal.getsignal(signum) == signal.SIG_IGN:
            signums.remove(signum)
    free = [signum for signum in SCHEDULER_SIGNALS if signal.getsignal(signum) == signal.SIG_DFL]
    return signums + free


def raise_if_interrupted() -> None:
    """Raise `Interrupted` if a termination signal was received."""
    if SIGNAL_STATE.signum:
        raise Interrupted(SIGNAL_STATE.signum, "stopped")


def raise_if_late() -> None:
    """Raise `Interrupted` if a signal arrived during a validation that takes long to finish."""
    if time.monotonic() - SIGNAL_STATE.received_at > SECONDS_TO_VALIDATE:
        message = "stopped during a validation; the newest checkpoint is from before it"
        raise Interrupted(SIGNAL_STATE.signum, message)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` as soon as a signal arrives, or at once if one has arrived before."""
    raise_if_interrupted()
    with set_immediate(True):
        yield


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Only record signals inside the context, and act on a recorded signal at its end."""
    with set_immediate(False):
        yield
    if SIGNAL_STATE.is_immediate:
        raise_if_interrupted()


@contextmanager
def set_immediate(is_immediate: bool) -> Iterator[None]:
    """Set `SIGNAL_STATE.is_immediate` inside the context."""
    previous = SIGNAL_STATE.is_immediate
    SIGNAL_STATE.is_immediate = is_immediate
    try:
        yield
    finally:
        SIGNAL_STATE.is_immediate = previous


def announce(signum: int) -> None:
    """Tell the user how a signal is handled. `os.write` is safe in a signal handler."""
    message = "finishing the current batch, then stopping; press Ctrl-C again to abort"
    if SIGNAL_STATE.is_immediate:
        message = "stopping"
    with suppress(OSError):  # the terminal may be closed
        os.write(2, f"\n{signal.Signals(signum).name}: {message}\n".encode())


def reset_after_fork() -> None:
    """In a forked process, restore the handlers that were set before `catch_signals`."""
    SIGNAL_STATE.is_catching = False
    SIGNAL_STATE.is_immediate = False
    for signum, handler in SIGNAL_STATE.previous_handlers.items():
        signal.signal(signum, handler)


def ignore_signals(worker: int) -> None:
    """Ignore termination signals in a data loader worker: the main process stops it."""
    for signum in (*TERMINATION_SIGNALS, *SCHEDULER_SIGNALS):
        signal.signal(signum, signal.SIG_IGN)


def requeue() -> None:
    """Requeue this SLURM job, as Lightning does. The job script resumes with `resume=true`."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=SECONDS_TO_REQUEUE)
        log.info("SLURM job %s was requeued", job)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("SLURM job %s could not be requeued (%s)", job, error)
