"""Output streams whose errors never end a run, and the log handlers of the command line."""

from __future__ import annotations

import functools
import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

STREAM_NAMES = {1: "standard output", 2: "standard error"}


class SteadyFile(io.FileIO):
    """File descriptor of an output stream. After an error, its output is dropped.

    Errors are a closed pipe (`| head`), a closed terminal, or a full disk.

    Args:
        fd: 1 for standard output, 2 for standard error.
        is_reported: True to report the first error on the other stream.
    """

    def __init__(self, fd: int, is_reported: bool = True) -> None:
        super().__init__(fd, "w", closefd=False)
        self.is_reported = is_reported

    def write(self, data: Any) -> int:
        with memoryview(data) as view:
            size = view.nbytes
        try:
            while (num_written := super().write(data)) is None:
                time.sleep(0.01)  # another program has made the stream non-blocking
            return num_written
        except OSError as error:
            self.drop_output(error)
            return size

    def drop_output(self, error: OSError) -> None:
        """Redirect the descriptor to the null device, and report this on the other stream."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        name = STREAM_NAMES.get(self.fileno(), "a stream")
        message = f"{name} is unavailable ({error.strerror}); continuing without it\n"
        with suppress(OSError):
            if self.is_reported:
                os.write(2 if self.fileno() == 1 else 1, message.encode())


@contextmanager
def steady_output(is_reported: bool = True) -> Iterator[None]:
    """Replace sys.stdout and sys.stderr with streams that drop output that cannot be written.

    Characters that the encoding of a stream lacks are written as "?".

    Args:
        is_reported: True to report the first error of a stream on the other one.
    """
    reserve_descriptors()
    original = (sys.stdout, sys.stderr)
    sys.stdout = to_steady(sys.stdout, 1, is_reported)
    sys.stderr = to_steady(sys.stderr, 2, is_reported)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        sys.stdout, sys.stderr = original


def reserve_descriptors() -> None:
    """Open the null device for each closed standard stream.

    Otherwise the next file that is opened, such as a checkpoint, gets the number of the stream, and
    receives its output.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def to_steady(stream: TextIO | None, fd: int, is_reported: bool) -> TextIO:
    """Return a stream that writes to the same descriptor; other streams are returned unchanged."""
    if stream is not None:
        try:
            is_windows_console = sys.platform == "win32" and stream.isatty()
            if stream.fileno() != fd or is_windows_console:
                return stream
        except (OSError, ValueError):  # replaced by a program that embeds this one
            return stream
        with suppress(OSError, ValueError):
            stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    buffer = io.BufferedWriter(SteadyFile(fd, is_reported))
    return io.TextIOWrapper(buffer, encoding, errors="replace", line_buffering=True)


class ConsoleHandler(logging.StreamHandler[Any]):
    """Handler that writes to the current sys.stdout, which a live progress bar replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


def set_up_log_handlers() -> None:
    """Adapt the log handlers that Hydra has installed.

    Messages appear above a live progress bar, the log file is UTF-8, and a log file that cannot be
    written is reported once.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logging.FileHandler):
            if isinstance(handler.stream, io.TextIOWrapper):
                handler.stream.reconfigure(encoding="utf-8", errors="backslashreplace")
            handle_error = functools.partial(stop_log_file, handler)
            handler.handleError = handle_error  # type: ignore[method-assign]
        elif type(handler) is logging.StreamHandler:
            console = ConsoleHandler()
            console.setFormatter(handler.formatter)
            console.setLevel(handler.level)
            root.removeHandler(handler)
            root.addHandler(console)


def stop_log_file(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    """Report that a record cannot be written to a log file, and stop writing to the file."""
    error = sys.exc_info()[1]
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if other is not handler]  # being iterated
    with suppress(OSError):
        handler.close()
    log = logging.getLogger(__name__)
    log.warning("the log file %s cannot be written (%s); continuing", handler.baseFilename, error)
