import errno
import os

import pytest

from vaegan.runtime.atomic_files import atomic_write, read_json, remove_partial, write_json


def test_what_is_written_takes_the_place_at_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch, where):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where != "write":
        monkeypatch.setattr(os, where, full)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
        if where == "write":
            full()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    (tmp_path / "last.ckpt.17.partial").touch()
    (tmp_path / "last.ckpt").touch()
    remove_partial(tmp_path)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_plain_data_come_back_and_damaged_ones_are_said(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, None, 0.1]})
    assert read_json(path) == {"a": [1, None, 0.1]}
    path.write_text("{")
    with pytest.raises(ValueError, match="file.json cannot be read"):
        read_json(path)
