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
SCHEDULER_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM can send them before time is up


class Interrupted(Exception):
    """A signal asked the run to stop, and it has saved what it had to."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(signum, message)
        self.signum = signum
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """Exit status, by the convention of shells."""
        return 128 + self.signum


class SignalState:
    """Signal that this process has received, and how it handles signals."""

    signum = 0  # 0: none yet
    is_catching = False
    is_worker = False  # True if the parent process informs the user and forwards signals
    previous_handlers: Mapping[signal.Signals, Any] = {}


SIGNAL_STATE = SignalState()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Record the first termination signal in `SIGNAL_STATE`; a second Ctrl-C aborts at once.

    Nested uses and uses outside of the main thread, which gets no signals, do nothing.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if SIGNAL_STATE.is_catching or not is_main_thread:
        yield
        return
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child process
            return
        if not SIGNAL_STATE.signum:
            SIGNAL_STATE.signum = signum
            if not SIGNAL_STATE.is_worker:
                announce(signum)
        elif signum == signal.SIGINT and not SIGNAL_STATE.is_worker:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(owner, signum)

    signums = list(TERMINATION_SIGNALS)
    for signum in SCHEDULER_SIGNALS:
        if signal.getsignal(signum) == signal.SIG_DFL:  # else a launcher handles it
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
    """Tell the user what follows a signal; `os.write` is safe in a signal handler."""
    message = "stopping in order after the current batch; press Ctrl-C again to abort"
    os.write(2, f"\n{signal.Signals(signum).name}: {message}\n".encode())


def reset_after_fork() -> None:
    """Restore the handlers from before `catch_signals` in a forked process."""
    SIGNAL_STATE.is_catching = False
    for signum, handler in SIGNAL_STATE.previous_handlers.items():
        signal.signal(signum, handler)


def ignore_signals(worker: int) -> None:
    """Ignore termination signals in a data loader's worker: its owner stops it when it is done."""
    for signum in TERMINATION_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def requeue() -> None:
    """Queue this SLURM job again, as Lightning would; its script resumes with `resume=true`."""
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
