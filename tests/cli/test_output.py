"""Output streams and log handlers never end a run."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vaegan.cli.output import ConsoleHandler, SteadyFile, set_up_log_handlers

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
import threading
import time
from vaegan.cli.output import steady_output
with steady_output():
    for i in range(3):
        print("caf\\u00e9 \\u2022 \\udce9", flush=True)
        sys.stderr.write("note\\n")
    open(sys.argv[1], "w").write("finished")
"""


def run(tmp_path, redirection="", **environment):
    """Run a program that prints, in a shell with a redirection; return the completed process."""
    done = tmp_path / "done"
    completed = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, PROGRAM, str(done)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        timeout=30,
    )
    assert completed.returncode == 0 and done.read_text() == "finished", completed.stderr
    return completed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_characters_that_a_stream_does_not_have_are_replaced(tmp_path, encoding):
    out = run(tmp_path, PYTHONIOENCODING=encoding).stdout
    assert out.startswith(b"caf") and b"?" in out


def test_c_locale_does_not_stop_a_run(tmp_path):
    run(tmp_path, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_closed_stream_does_not_stop_a_run(tmp_path, fd):
    run(tmp_path, f"{fd}>&-" if fd else "<&-")


def test_all_streams_closed_do_not_stop_a_run(tmp_path):
    run(tmp_path, "<&- >&- 2>&-")


@pytest.mark.parametrize("fd, name", [(1, "output"), (2, "error")])
def test_full_disk_is_reported_once_on_the_other_stream(tmp_path, fd, name):
    completed = run(tmp_path, f"{fd}>/dev/full")
    other = completed.stderr if fd == 1 else completed.stdout
    message = f"standard {name} is unavailable (No space left on device)".encode()
    assert other.count(message) == 1


def test_output_to_a_closed_pipe_is_dropped(capfd):
    reader, writer = os.pipe()
    os.close(reader)
    stream = io.TextIOWrapper(io.BufferedWriter(SteadyFile(writer)), "ascii", errors="replace")
    for _ in range(2):
        print("text", file=stream, flush=True)
    os.close(writer)
    assert capfd.readouterr().out.count("is unavailable (Broken pipe); continuing") == 1


def test_slow_reader_of_a_non_blocking_pipe_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    received = []

    def read():
        while chunk := os.read(reader, 4096):
            time.sleep(0.001)
            received.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    stream = io.TextIOWrapper(io.BufferedWriter(SteadyFile(writer)), "ascii")
    print("x" * 300_000, file=stream, flush=True)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(received) == b"x" * 300_000 + b"\n"


@pytest.fixture
def root():
    """Return the root logger without handlers; restore its handlers afterwards."""
    logger = logging.getLogger()
    old = logger.handlers[:]
    logger.handlers[:] = []
    yield logger
    logger.handlers[:] = old


def test_console_handler_follows_standard_output(root, monkeypatch, capsys):
    root.addHandler(logging.StreamHandler(sys.stderr))
    set_up_log_handlers()
    assert [type(handler) for handler in root.handlers].count(ConsoleHandler) == 1
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    root.warning("message")
    assert sys.stdout.getvalue() == "message\n"


def test_unwritable_log_file_is_reported_once(root, capsys):
    root.addHandler(logging.FileHandler("/dev/full"))
    root.addHandler(logging.StreamHandler())
    set_up_log_handlers()
    for _ in range(3):
        root.warning("message")
    out, err = capsys.readouterr()
    assert out.count("the log file /dev/full cannot be written") == 1 and not err
    assert out.count("message") == 3


def test_log_file_has_any_characters(root, tmp_path, monkeypatch):
    handler = logging.FileHandler(tmp_path / "train.log", encoding="ascii")
    monkeypatch.setattr(root, "handlers", [handler])  # pytest's own cannot report the character
    set_up_log_handlers()
    root.warning("\u2022 \udce9")
    handler.close()
    assert (tmp_path / "train.log").read_text(encoding="utf-8") == "\u2022 \\udce9\n"
