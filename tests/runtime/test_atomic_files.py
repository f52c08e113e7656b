import errno
import os

import pytest

from vaegan.runtime.atomic_files import atomic_write, read_json, remove_partial, write_json


def test_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("failing_call", ["write", "fsync", "replace"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, failing_call):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing_call != "write":
        monkeypatch.setattr(os, failing_call, full)
    with pytest.raises(OSError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
        if failing_call == "write":
            full()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_remove_partial_removes_only_partial_files(tmp_path):
    (tmp_path / "last.ckpt.17.partial").touch()
    (tmp_path / "last.ckpt").touch()
    remove_partial(tmp_path)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_json_round_trip_and_damaged_file(tmp_path):
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, None, 0.1]})
    assert read_json(path) == {"a": [1, None, 0.1]}
    path.write_text("{")
    with pytest.raises(ValueError, match="file.json cannot be read"):
        read_json(path)
