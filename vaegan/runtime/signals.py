"""Signals that ask a run to end: noted when they come, heeded when a batch is done."""

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
ENDING = (signal.SIGTERM, signal.SIGINT)
SCHEDULERS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
)  # what SLURM can be told to send before the time is up


class Interrupted(Exception):
    """A signal asked the run to end, and it did so in order."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(signum, message)
        self.signum, self.message = signum, message

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> int:
        """Exit status, as a shell tells it."""
        return 128 + self.signum


class SignalState:
    """The signal that came, if any."""

    signum = 0
    is_open = False  # whether signals are noted
    is_worker = False  # whether another process tells the user, and passes signals on
    handlers: Mapping[signal.Signals, Any] = {}  # those that were in the place of ours


SIGNAL_STATE = SignalState()


@contextmanager
def catch_signals() -> Iterator[None]:
    """Inside, the first signal that asks the run to end is noted in `SIGNAL_STATE`; a second Ctrl-C ends it at once."""
    if (
        SIGNAL_STATE.is_open or threading.current_thread() is not threading.main_thread()
    ):  # other threads get no signals
        yield
        return
    SIGNAL_STATE.signum, SIGNAL_STATE.is_open, owner = 0, True, os.getpid()

    def note(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a process that it has started
        if signum == signal.SIGINT and SIGNAL_STATE.signum and not SIGNAL_STATE.is_worker:
            terminate_now(signum)
        elif not SIGNAL_STATE.signum:
            SIGNAL_STATE.signum = signum
            if not SIGNAL_STATE.is_worker:
                name = signal.Signals(signum).name
                os.write(
                    2,
                    f"\n{name}: the run will end in order; another Ctrl-C ends it at once\n".encode(),
                )

    taken = [
        s for s in (*ENDING, *SCHEDULERS) if s in ENDING or signal.getsignal(s) == signal.SIG_DFL
    ]
    SIGNAL_STATE.handlers = before = {signum: signal.signal(signum, note) for signum in taken}
    try:
        yield
    finally:
        SIGNAL_STATE.is_open, SIGNAL_STATE.signum = False, 0
        for signum, handler in before.items():
            signal.signal(signum, handler)


def reset_after_fork() -> None:
    """In a process that was forked from one that notes signals: forget what that one has noted, and how."""
    SIGNAL_STATE.is_open = False
    for signum, handler in SIGNAL_STATE.handlers.items():
        signal.signal(signum, handler)


def ignore_signals(worker: int) -> None:
    """For a loader's process: its owner tells it when to end, and needs it until then."""
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)


def terminate_now(signum: int) -> None:
    """What the signal does to a program that does not listen."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


def requeue() -> None:
    """Let SLURM start its job anew, as Lightning would: its script goes on with the run where it says `resume=true`."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if re.fullmatch(r"\d+(_\d+)?", job):
        try:
            subprocess.run(["scontrol", "requeue", job], check=True)
            log.info("SLURM job %s is queued again", job)
        except (OSError, subprocess.CalledProcessError) as error:
            log.warning("SLURM job %s could not be queued again (%s)", job, error)
