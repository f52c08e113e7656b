"""Signals that ask a run to end: noted when they come, heeded when a batch is done."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)
SCHEDULERS = (signal.SIGUSR1, signal.SIGUSR2)  # what SLURM can be told to send before the time is up


class Interrupted(Exception):
    """A signal asked the run to end, and it did so in order."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum

    @property
    def status(self) -> int:
        """Exit status, as a shell tells it."""
        return 128 + self.signum


class Inbox:
    """The signal that came, if any."""

    signum = 0


INBOX = Inbox()


@contextmanager
def noting_signals() -> Iterator[None]:
    """Inside, the first signal that asks the run to end is noted in `INBOX`; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # a launcher's worker thread, which gets no signals
        return
    INBOX.signum, owner = 0, os.getpid()

    def note(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a loader's process: its owner tells it when to end
            if signum == signal.SIGTERM:
                end_at_once(signum)
        elif signum == signal.SIGINT and INBOX.signum:
            end_at_once(signum)
        elif not INBOX.signum:
            INBOX.signum = signum
            name = signal.Signals(signum).name
            os.write(2, f"\n{name}: this batch is the last; Ctrl-C ends at once\n".encode())

    taken = [s for s in (*ENDING, *SCHEDULERS) if s in ENDING or signal.getsignal(s) == signal.SIG_DFL]
    before = {signum: signal.signal(signum, note) for signum in taken}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def end_at_once(signum: int) -> None:
    """What the signal does to a program that does not listen."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
