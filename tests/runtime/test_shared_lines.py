import gc
import io
import os

import pytest

from vaegan.runtime import shared_lines
from vaegan.runtime.shared_lines import SharedLines


def test_each_line_is_read_once():
    lines = SharedLines()
    assert lines.read_new() == [] and not lines.path.exists()
    lines.append("a")
    lines.append("é")
    assert lines.read_new() == ["a", "é"] and lines.read_new() == []
    lines.append("b")
    assert lines.read_new() == ["b"]


def test_incomplete_line_is_read_later():
    lines = SharedLines()
    lines.append("a")
    with open(lines.path, "ab") as file:
        file.write(b"half")
    assert lines.read_new() == ["a"] and lines.read_new() == []
    with open(lines.path, "ab") as file:
        file.write(b" a line\n")
    assert lines.read_new() == ["half a line"]


def test_reading_in_two_threads_skips_no_line(monkeypatch):
    lines = SharedLines()
    lines.append("a")
    found = []

    class SlowFile(io.FileIO):
        def read(self, *args):
            monkeypatch.undo()
            found.extend(lines.read_new())  # by another thread
            return super().read(*args)

    monkeypatch.setattr(shared_lines, "open", SlowFile, raising=False)
    found += lines.read_new()
    lines.append("b")
    assert {*found, *lines.read_new()} == {"a", "b"}


def test_file_is_private_and_removed_with_the_object():
    lines = SharedLines()
    lines.append("a")
    path = lines.path
    assert path.stat().st_mode & 0o777 == 0o600
    del lines
    gc.collect()
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_does_not_remove_the_file():
    lines = SharedLines()
    lines.append("a")
    pid = os.fork()
    if not pid:
        del lines
        gc.collect()
        os._exit(0)
    os.waitpid(pid, 0)
    assert lines.path.exists()
