"""Record termination signals and act on them at batch boundaries."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)
TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SCHEDULER_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM can send these before the time limit


class Interrupted(Exception):
    """Raised to end a run after a signal, once its state is saved."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(signum, message)
        self.signum = signum
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """Exit status by shell convention: 128 + signal number."""
        return 128 + self.signum


class SignalState:
    """Signal that this process has received, and state of the signal handling."""

    signum = 0  # 0: no signal received
    is_catching = False  # True inside `catch_signals`
    is_worker = False  # True if the parent process informs the user and forwards signals
    previous_handlers: Mapping[signal.Signals, Any] = {}


SIGNAL_STATE = SignalState()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Record the first termination signal in `SIGNAL_STATE`; a second Ctrl-C aborts at once.

    Does nothing if nested, or outside of the main thread: other threads receive no signals.
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
            if not SIGNAL_STATE.is_worker:
                announce(signum)
        elif signum == signal.SIGINT and not SIGNAL_STATE.is_worker:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(owner_pid, signum)

    signums = list(TERMINATION_SIGNALS)
    for signum in SCHEDULER_SIGNALS:
        if signal.getsignal(signum) == signal.SIG_DFL:  # otherwise a launcher handles the signal
            signums.append(signum)
    SIGNAL_STATE.signum = 0
    SIGNAL_STATE.is_catching = True
    previous_handlers = {signum: signal.signal(signum, handle) for signum in signums}
    SIGNAL_STATE.previous_handlers = previous_handlers
    try:
        yield
    finally:
        SIGNAL_STATE.is_catching = False
        SIGNAL_STATE.signum = 0
        for signum, handler in previous_handlers.items():
            signal.signal(signum, handler)


def announce(signum: int) -> None:
    """Tell the user how a signal is handled. `os.write` is safe in a signal handler."""
    message = "finishing the current batch, then stopping; press Ctrl-C again to abort"
    os.write(2, f"\n{signal.Signals(signum).name}: {message}\n".encode())


def reset_after_fork() -> None:
    """In a forked process, restore the handlers that were set before `catch_signals`."""
    SIGNAL_STATE.is_catching = False
    for signum, handler in SIGNAL_STATE.previous_handlers.items():
        signal.signal(signum, handler)


def ignore_signals(worker: int) -> None:
    """Ignore termination signals in a data loader worker: the main process stops it."""
    for signum in TERMINATION_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def requeue() -> None:
    """Requeue this SLURM job, as Lightning does. The job script resumes with `resume=true`."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if not re.fullmatch(r"\d+(_\d+)?", job):
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
        log.info("SLURM job %s was requeued", job)
    except (OSError, subprocess.CalledProcessError) as error:
        log.warning("SLURM job %s could not be requeued (%s)", job, error)
