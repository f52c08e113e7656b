"""Downloads that fail instead of waiting forever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS_WITHOUT_DATA = 60.0  # longest wait for a server's next bytes


@contextmanager
def download_timeout() -> Iterator[None]:
    """Limit the time that downloads in the context wait for data; by default they wait forever.

    A server that sends nothing causes a TimeoutError, which is an OSError.
    """
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_WITHOUT_DATA)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
