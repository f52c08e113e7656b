import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pictures import draw, encode, fill
from vaegan.data import picture_cache
from vaegan.data.decoding import Decoder
from vaegan.data.picture_cache import PictureCache
from vaegan.data.reading import Tally
from vaegan.data.scanning import scan

DECODER = Decoder(3, 8, 10, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)
ROW = 3 * 8 * 10


class Counted(Decoder):
    """A decoder that knows how often it was used."""

    calls = []

    def __call__(self, content):
        Counted.calls.append(content)
        return super().__call__(content)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    fill(root, 12)
    return root


def build(tmp_path, root, decoder=DECODER, **limits):
    """What a cache makes of a folder: its records, its images by path, and how many pictures were decoded for that."""
    Counted.calls.clear()
    files, _ = scan(root)
    tally = Tally(len(files), limits.get("max_broken", 0.5), limits.get("fails", False))
    cache = PictureCache(tmp_path / "cache", root, Counted(*vars(decoder).values()))
    records = cache.update(files, tally, num_threads=2)
    images = cache.images(list(records.values()))[:]
    return tally, dict(zip(records, images, strict=True)), len(Counted.calls)


def check(root, images):
    """Every image is what its file decodes to."""
    for path, image in images.items():
        assert np.array_equal(image.numpy(), DECODER((root / path).read_bytes())), path


def test_a_folder_is_decoded_once(tmp_path, folder):
    tally, images, decoded = build(tmp_path, folder)
    assert len(images) == decoded == 12 and not tally.skipped
    check(folder, images)
    _, again, decoded = build(tmp_path, folder)
    assert decoded == 0 and all(torch.equal(again[path], images[path]) for path in images)


def test_only_what_changed_is_decoded(tmp_path, folder):
    build(tmp_path, folder)
    (folder / "0003.png").write_bytes(encode(draw(seed=99)))  # another content
    fill(folder, 2, start=20)  # new ones
    (folder / "0005.png").unlink()
    os.utime(folder / "0006.png", (1, 1))  # touched
    (folder / "sub").mkdir()
    (folder / "0007.png").rename(folder / "sub" / "moved.png")
    shutil.copy(folder / "0008.png", folder / "twin.png")
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 3
    assert len(images) == 14 and "sub/moved.png" in images and "0005.png" not in images
    check(folder, images)


def test_broken_files_are_skipped_once_known_and_looked_at_again_when_they_change(tmp_path, folder):
    (folder / "bad.png").write_bytes(b"words")
    for decoded in (13, 0):
        tally, images, calls = build(tmp_path, folder)
        assert [skipped.path for skipped in tally.skipped] == ["bad.png"] and len(images) == 12 and calls == decoded
    (folder / "bad.png").write_bytes(encode(draw(seed=50)))
    tally, images, calls = build(tmp_path, folder)
    assert not tally.skipped and len(images) == 13 and calls == 1


@pytest.mark.parametrize("again", [False, True])
def test_the_first_broken_file_stops_where_that_is_wanted(tmp_path, folder, again):
    (folder / "0004.png").write_bytes(b"words")
    if again:
        build(tmp_path, folder)
    with pytest.raises(ValueError, match=r"0004\.png: no picture of a known format.*dataset\.on_error=skip"):
        build(tmp_path, folder, fails=True)


def test_too_many_broken_files_stop_the_build_and_what_is_decoded_is_kept(tmp_path, folder):
    for i in (5, 6, 7, 8):
        (folder / f"{i:04d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"3 of 12 files cannot be used, more than dataset.max_broken=0\.2"):
        build(tmp_path, folder, max_broken=0.2)
    _, images, decoded = build(tmp_path, folder, max_broken=0.5)
    assert len(images) == 8 and decoded < 12


def test_a_file_that_goes_or_cannot_be_read_is_skipped_and_not_remembered(tmp_path, folder, monkeypatch):
    read_bytes, refused = Path.read_bytes, "0002.png"

    def read(path):
        if path.name == refused:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    tally, images, _ = build(tmp_path, folder)
    assert tally.skipped == [("0002.png", "cannot be read (Permission denied)")] and len(images) == 11
    refused = None
    tally, images, decoded = build(tmp_path, folder)
    assert not tally.skipped and len(images) == 12 and decoded == 1


def test_a_file_larger_than_any_picture_is_not_read(tmp_path, folder):
    with open(folder / "huge.png", "wb") as file:
        file.truncate(DECODER.max_bytes + 1)
    tally, images, decoded = build(tmp_path, folder)
    assert "bytes are more than a picture needs" in tally.skipped[0].reason and len(images) == decoded == 12


def test_a_cache_of_mostly_dead_rows_shrinks(tmp_path, folder):
    build(tmp_path, folder)
    for path in sorted(folder.iterdir())[:9]:
        path.unlink()
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 0 and (tmp_path / "cache" / "pixels").stat().st_size == 3 * ROW
    check(folder, images)
    fill(folder, 2, start=30)
    check(folder, build(tmp_path, folder)[1])


def test_a_running_reader_keeps_its_images_when_the_cache_changes(tmp_path, folder):
    files, _ = scan(folder)
    cache = PictureCache(tmp_path / "cache", folder, DECODER)
    images = cache.images(list(cache.update(files, Tally(12, 0.1, False), 1).values()))
    before = images[:].clone()
    for path in sorted(folder.iterdir())[:9]:
        path.unlink()
    build(tmp_path, folder)
    assert torch.equal(images[:], before)


@pytest.mark.parametrize("damage", ["table", "pixels", "lost"])
def test_a_damaged_cache_is_built_anew(tmp_path, folder, damage, caplog):
    build(tmp_path, folder)
    if damage == "table":
        (tmp_path / "cache" / "table.sqlite").write_bytes(b"no table" * 500)
    elif damage == "pixels":
        os.truncate(tmp_path / "cache" / "pixels", 5 * ROW)
    else:
        (tmp_path / "cache" / "pixels").unlink()
    _, images, decoded = build(tmp_path, folder)
    assert len(images) == decoded == 12 and "is damaged: all are decoded anew" in caplog.text
    check(folder, images)


def test_images_are_taken_by_index_and_travel_to_loader_processes_as_a_path(tmp_path, folder):
    files, _ = scan(folder)
    cache = PictureCache(tmp_path / "cache", folder, DECODER)
    records = cache.update(files, Tally(12, 0.1, False), 1)
    images = cache.images(list(records.values()))
    assert len(images) == 12 and images[torch.tensor([5, 2])].shape == (2, 3, 8, 10)
    assert len(pickle.dumps(images)) < 3000
    assert torch.equal(pickle.loads(pickle.dumps(images))[:], images[:])
    assert cache.images([])[:].shape == (0, 3, 8, 10)


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ValueError, match=r"12 pictures of shape \(3, 8, 10\) need 0\.00 GB .* set dataset\.cache"):
        build(tmp_path, folder)
    assert not Counted.calls


def test_a_disk_that_fills_up_loses_nothing(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(picture_cache, "COMMIT_FILES", 4)
    commit, done = picture_cache.commit, []

    def full(array, table, records):
        if len(done) == 2:
            raise OSError(28, "No space left on device")
        done.append(records)
        commit(array, table, records)

    monkeypatch.setattr(picture_cache, "commit", full)
    with pytest.raises(ValueError, match=r"cannot be written .*No space left.* set dataset\.cache .* is kept"):
        build(tmp_path, folder)
    monkeypatch.undo()
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 4
    check(folder, images)


def test_a_cache_that_cannot_be_made_says_what_to_do(tmp_path, folder):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"cannot be written .*set dataset\.cache to another folder, or to null"):
        build(tmp_path, folder)


BUILD = """
import sys, time
from pathlib import Path
from vaegan.data import picture_cache
from vaegan.data.decoding import Decoder
from vaegan.data.picture_cache import PictureCache
from vaegan.data.reading import Tally
from vaegan.data.scanning import scan
picture_cache.COMMIT_FILES = 8
class Slow(Decoder):
    def __call__(self, content):
        time.sleep(0.02)
        print(end="x", flush=True)
        return super().__call__(content)
root = Path(sys.argv[1])
files, _ = scan(root)
cache = PictureCache(Path(sys.argv[2]), root, Slow(3, 8, 10, True, (255, 255, 255), 10_000))
print("y" * len(cache.update(files, Tally(len(files), 0.1, False), 1)), flush=True)
"""


def start(tmp_path, root):
    command = [sys.executable, "-c", BUILD, str(root), str(tmp_path / "cache")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_a_build_that_is_killed_goes_on_where_it_was(tmp_path):
    root = tmp_path / "pictures"
    fill(root, 60)
    process = start(tmp_path, root)
    assert process.stdout.read(30) == "x" * 30
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, images, decoded = build(tmp_path, root)
    assert len(images) == 60 and 30 <= decoded <= 60 - 8
    check(root, images)


@pytest.mark.slow
def test_two_processes_build_one_cache(tmp_path):
    root = tmp_path / "pictures"
    fill(root, 40)
    processes = [start(tmp_path, root) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [output.count("y") for output in outputs] == [40, 40]
    assert sum(output.count("x") for output in outputs) == 40
    check(root, build(tmp_path, root)[1])


def test_time_too_makes_a_commit(tmp_path, folder, monkeypatch):
    """Large pictures: what was decoded is written down after a while, even if they are few."""
    monkeypatch.setattr(picture_cache, "COMMIT_SECONDS", 0.0)
    sizes, commit = [], picture_cache.commit
    monkeypatch.setattr(picture_cache, "commit", lambda *args: (sizes.append(len(args[2])), commit(*args)))
    build(tmp_path, folder)
    assert sizes == [1] * 12 + [0]
