import os
import threading
import time

import pytest

from vaegan.data.images.decoding import BrokenImage, DecodedImage, ImageTraits
from vaegan.data.images.reading import (
    QUEUED_FILES_PER_THREAD,
    Content,
    count_usable_cores,
    read_all,
    read_bounded,
    read_file,
    with_progress,
)
from vaegan.data.images.scanning import ImageFile, scan

NOT_DECODED = DecodedImage(None, ImageTraits())


def write_files(folder, num):
    """Write `num` different files; return them as scanned."""
    for i in range(num):
        (folder / f"{i:03d}.png").write_bytes(bytes([i]))
    return scan(folder)[0]


def test_read_all_keeps_the_order_and_reads_few_files_ahead(tmp_path):
    files, read = write_files(tmp_path, 100), []

    def decode(digest, content):
        time.sleep(0.001 * (content[0] % 3))
        read.append(content[0])
        return NOT_DECODED

    contents = read_all(tmp_path, files, decode, 100, num_threads=2)
    assert next(contents).file == files[0]
    time.sleep(0.2)
    assert len(read) <= 2 * QUEUED_FILES_PER_THREAD + 2
    assert [content.file for content in contents] == files[1:] and sorted(read) == list(range(100))
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_equal_contents_have_equal_digests(tmp_path):
    for name, data in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / f"{name}.png").write_bytes(data)
    files = scan(tmp_path).files
    contents = read_all(tmp_path, files, lambda *_: NOT_DECODED, 10, 1)
    a, b, c = (content.digest for content in contents)
    assert a == b != c and len(a) == 16


@pytest.mark.parametrize(
    "error, reason, is_known",
    [(BrokenImage("bad"), "bad", True), (MemoryError(), "not enough memory", False)],
)
def test_decode_errors_give_a_reason_and_only_broken_files_a_digest(
    tmp_path, error, reason, is_known
):
    (file,) = write_files(tmp_path, 1)

    def decode(digest, content):
        raise error

    content = read_file(tmp_path, file, decode, 10)
    assert reason in content.reason and bool(content.digest) == is_known and content.pixels is None


def test_read_bounded_accepts_only_regular_files_of_limited_size(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(BrokenImage, match="the file has 5 bytes, too many"):
        read_bounded(tmp_path / "a", 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BrokenImage, match="not a regular file"):
        read_bounded(tmp_path / "pipe", 4)


def test_empty_files_are_not_opened(tmp_path):
    content = read_file(tmp_path, ImageFile("none.png", 0, 0), lambda *_: None, 10)
    assert content.reason == "the file is empty"


def test_progress_bar_yields_all_contents(capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # as in a terminal
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    contents = [Content(ImageFile(str(i), 1, 1), reason="bad" if i == 3 else "") for i in range(20)]
    assert list(with_progress(iter(contents), 20)) == contents
    assert "20/20" in capsys.readouterr().err and count_usable_cores() >= 1
