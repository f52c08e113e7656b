import os
import pickle
import shutil
import time

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from tests.faults import fork, kill, wait, wait_until
from tests.image_files import draw, encode, fill
from vaegan.data.image_folder import CACHE_FORMAT
from vaegan.data.images import cache_index, image_cache, reading
from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.cache_index import CacheIndex
from vaegan.data.images.decoding import ImageDecoder
from vaegan.data.images.image_cache import ImageCache
from vaegan.data.images.scanning import scan

DECODER = ImageDecoder(3, 8, 10, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)
ROW = 3 * 8 * 10


class CountingDecoder(ImageDecoder):
    """Decoder that records its calls."""

    calls = []

    def decode(self, content):
        CountingDecoder.calls.append(content)
        return super().decode(content)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    fill(root, 12)
    return root


def build(tmp_path, root, decoder=DECODER, **limits):
    """Update a cache; return the broken files, the images by path and the number decoded."""
    CountingDecoder.calls.clear()
    files = scan(root).files
    broken_files = BrokenFileLimit(
        len(files), limits.get("max_broken", 0.5), limits.get("fail_fast", False)
    )
    counting_decoder = CountingDecoder(*vars(decoder).values())
    cache = ImageCache(tmp_path / "cache", root, counting_decoder, num_threads=2)
    found = cache.update(files, broken_files, limits.get("may_shrink", True))
    images = found.images(list(found.records))[:]
    return broken_files, dict(zip(found.records, images, strict=True)), len(CountingDecoder.calls)


def array_path(tmp_path):
    """Return the path of the only pixel array."""
    (path,) = (tmp_path / "cache").glob("pixels-*")
    return path


def open_images(tmp_path, root, **limits):
    """Return the images of a cache, as a data set holds them."""
    files = scan(root).files
    cache = ImageCache(tmp_path / "cache", root, DECODER, 1)
    found = cache.update(
        files, BrokenFileLimit(len(files), 0.5, False), limits.get("may_shrink", True)
    )
    return found.images(list(found.records))


def assert_decoded(root, images):
    """Check that each image equals its decoded file."""
    for path, image in images.items():
        assert np.array_equal(
            image.permute(1, 2, 0).numpy(), DECODER((root / path).read_bytes())
        ), path


def test_second_build_decodes_nothing(tmp_path, folder):
    broken_files, images, decoded = build(tmp_path, folder)
    assert len(images) == decoded == 12 and not broken_files.skipped
    assert_decoded(folder, images)
    _, again, decoded = build(tmp_path, folder)
    assert decoded == 0 and all(torch.equal(again[path], images[path]) for path in images)


def test_only_new_content_is_decoded(tmp_path, folder):
    build(tmp_path, folder)
    (folder / "0003.png").write_bytes(encode(draw(seed=99)))  # new content
    fill(folder, 2, start=20)  # new files
    (folder / "0005.png").unlink()
    os.utime(folder / "0006.png", (1, 1))  # touched
    (folder / "sub").mkdir()
    (folder / "0007.png").rename(folder / "sub" / "moved.png")
    shutil.copy(folder / "0008.png", folder / "twin.png")
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 3
    assert len(images) == 14 and "sub/moved.png" in images and "0005.png" not in images
    assert_decoded(folder, images)


def test_broken_files_are_remembered_until_they_change(tmp_path, folder):
    (folder / "bad.png").write_bytes(b"words")
    for expected_calls in (13, 0):
        broken_files, images, calls = build(tmp_path, folder)
        assert (
            [skipped.path for skipped in broken_files.skipped] == ["bad.png"]
            and len(images) == 12
            and calls == expected_calls
        )
    (folder / "bad.png").write_bytes(encode(draw(seed=50)))
    broken_files, images, calls = build(tmp_path, folder)
    assert not broken_files.skipped and len(images) == 13 and calls == 1


@pytest.mark.parametrize("is_cached", [False, True])
def test_fail_fast_raises_at_the_first_broken_file(tmp_path, folder, is_cached):
    (folder / "0004.png").write_bytes(b"words")
    if is_cached:
        build(tmp_path, folder)
    with pytest.raises(
        ValueError, match=r"'0004\.png': not an image of a known format.*dataset\.on_error=skip"
    ):
        build(tmp_path, folder, fail_fast=True)


def test_too_many_broken_files_raise_and_decoded_images_are_kept(tmp_path, folder):
    for i in (5, 6, 7, 8):
        (folder / f"{i:04d}.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"3 of 12 files cannot be used, more than dataset.max_broken=0\.2"
    ):
        build(tmp_path, folder, max_broken=0.2)
    _, images, decoded = build(tmp_path, folder, max_broken=0.5)
    assert len(images) == 8 and decoded < 12


def test_unreadable_file_is_skipped_and_tried_again(tmp_path, folder, monkeypatch):
    read_bounded, unreadable = reading.read_bounded, "0002.png"

    def read(path, max_bytes):
        if path.name == unreadable:
            raise PermissionError(13, "Permission denied")
        return read_bounded(path, max_bytes)

    monkeypatch.setattr(reading, "read_bounded", read)
    broken_files, images, _ = build(tmp_path, folder)
    assert (
        broken_files.skipped == [("0002.png", "cannot be read (Permission denied)")]
        and len(images) == 11
    )
    unreadable = None
    broken_files, images, decoded = build(tmp_path, folder)
    assert not broken_files.skipped and len(images) == 12 and decoded == 1


def test_file_larger_than_any_image_is_not_read(tmp_path, folder):
    with open(folder / "huge.png", "wb") as file:
        file.truncate(DECODER.max_bytes + 1)
    broken_files, images, decoded = build(tmp_path, folder)
    assert (
        "too many for an image of dataset.max_pixels" in broken_files.skipped[0].reason
        and len(images) == decoded == 12
    )


def test_cache_of_mostly_unused_rows_shrinks_at_the_next_change(tmp_path, folder):
    build(tmp_path, folder)
    for path in sorted(folder.iterdir())[:9]:
        path.unlink()
    assert build(tmp_path, folder)[2] == 0 and array_path(tmp_path).stat().st_size == 12 * ROW
    fill(folder, 1, start=30)
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 1 and array_path(tmp_path).stat().st_size == 4 * ROW
    assert_decoded(folder, images)
    fill(folder, 2, start=40)
    assert_decoded(folder, build(tmp_path, folder)[1])


def test_cache_does_not_shrink_unless_allowed(tmp_path, folder):
    build(tmp_path, folder)
    (tmp_path / "away").mkdir()
    for path in sorted(folder.iterdir())[:9]:
        path.rename(tmp_path / "away" / path.name)
    fill(folder, 1, start=30)
    build(tmp_path, folder, may_shrink=False)
    for path in (tmp_path / "away").iterdir():
        path.rename(folder / path.name)
    assert build(tmp_path, folder)[2] == 0


def test_cache_is_kept_if_the_disk_is_too_full_to_shrink_it(tmp_path, folder, monkeypatch, caplog):
    build(tmp_path, folder)
    for path in sorted(folder.iterdir())[:9]:
        path.unlink()
    fill(folder, 1, start=30)

    write, old_array = CacheIndex.write, array_path(tmp_path).name

    def full(self, path):
        if self.array != old_array:
            raise OSError(28, "No space left on device")
        write(self, path)

    monkeypatch.setattr(CacheIndex, "write", full)
    caplog.set_level("INFO")
    assert_decoded(folder, build(tmp_path, folder)[1])
    assert "stays larger than necessary" in caplog.text
    assert array_path(tmp_path).name == old_array


@pytest.mark.parametrize("change", ["shrink", "damage", "grow", "replace last row"])
def test_running_reader_keeps_its_images_when_the_cache_changes(tmp_path, folder, change):
    images = open_images(tmp_path, folder)
    before = images[:].clone()
    if change == "shrink":
        for path in sorted(folder.iterdir())[:9]:
            path.unlink()
    elif change == "damage":
        (tmp_path / "cache" / "index.json").write_bytes(b"no index" * 500)
    elif change == "replace last row":
        shutil.copy(folder / "0000.png", folder / "0011.png")
    fill(folder, 3, start=30)
    assert_decoded(folder, build(tmp_path, folder)[1])
    (folder / "0030.png").write_bytes(encode(draw(seed=77)))
    assert_decoded(folder, build(tmp_path, folder)[1])
    assert torch.equal(images[:], before)


def test_unpickling_after_a_rebuild_raises(tmp_path, folder):
    pickled = pickle.dumps(open_images(tmp_path, folder))
    for path in sorted(folder.iterdir())[:9]:
        path.unlink()
    fill(folder, 1, start=30)
    build(tmp_path, folder)
    with pytest.raises(ValueError, match="was rebuilt by another process; restart the run"):
        pickle.loads(pickled)


def test_complete_cache_is_only_read(tmp_path, folder, monkeypatch):
    """A complete cache may be on read-only storage, and is opened without the lock."""
    build(tmp_path, folder)
    monkeypatch.setattr(ImageCache, "_locked", None)
    with FileLock(tmp_path / "cache" / "lock"):
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
        assert_decoded(folder, build(tmp_path, folder)[1])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == before


def test_cache_with_unread_broken_files_is_complete(tmp_path, folder, monkeypatch):
    (folder / "empty.png").write_bytes(b"")
    with open(folder / "huge.png", "wb") as file:
        file.truncate(DECODER.max_bytes + 1)
    build(tmp_path, folder)
    monkeypatch.setattr(ImageCache, "_locked", None)
    assert len(build(tmp_path, folder)[0].skipped) == 2


def test_cache_replaced_while_it_is_opened_is_read_again(tmp_path, folder, monkeypatch):
    build(tmp_path, folder)
    original_open = ImageCache._open

    def change(self, files, index):
        monkeypatch.setattr(ImageCache, "_open", original_open)
        raise ValueError("was rebuilt by another process")

    monkeypatch.setattr(ImageCache, "_open", change)
    assert_decoded(folder, build(tmp_path, folder)[1])


def test_row_layout_belongs_to_the_cache_format(tmp_path):
    """If rows change, increase CACHE_FORMAT in image_folder.py, and update this test."""
    root = tmp_path / "images"
    root.mkdir()
    image = Image.new("RGB", (10, 8), (1, 2, 3))
    image.putpixel((0, 0), (7, 8, 9))
    (root / "a.png").write_bytes(encode(image))
    build(tmp_path, root)
    assert CACHE_FORMAT == 5 and array_path(tmp_path).read_bytes()[:9] == bytes(
        [7, 8, 9, 1, 2, 3, 1, 2, 3]
    )


def test_broken_files_are_tried_again_with_another_pillow_version(tmp_path, folder, monkeypatch):
    (folder / "bad.png").write_bytes(b"words")
    monkeypatch.setattr(cache_index, "PILLOW_VERSION", "1.0")
    assert build(tmp_path, folder)[2] == 13
    monkeypatch.undo()
    assert [build(tmp_path, folder)[2] for _ in range(2)] == [1, 0]


def test_memory_errors_are_not_remembered(tmp_path, folder, monkeypatch):
    def exhausted(self, image):
        raise MemoryError

    monkeypatch.setattr(ImageDecoder, "_decode", exhausted)
    with pytest.raises(ValueError, match="not enough memory"):
        build(tmp_path, folder)
    monkeypatch.undo()
    broken_files, images, _ = build(tmp_path, folder)
    assert len(images) == 12 and not broken_files.skipped


@pytest.mark.parametrize("damage", ["index", "truncated array", "missing array"])
def test_damaged_cache_is_rebuilt(tmp_path, folder, damage, caplog):
    build(tmp_path, folder)
    if damage == "index":
        (tmp_path / "cache" / "index.json").write_bytes(b"no index" * 500)
    elif damage == "truncated array":
        os.truncate(array_path(tmp_path), 5 * ROW)
    else:
        array_path(tmp_path).unlink()
    _, images, decoded = build(tmp_path, folder)
    assert len(images) == decoded == 12 and "is damaged; decoding all images again" in caplog.text
    assert_decoded(folder, images)


def test_images_are_indexed_and_pickled_as_a_path(tmp_path, folder):
    images = open_images(tmp_path, folder)
    assert len(images) == 12 and images[torch.tensor([5, 2])].shape == (2, 3, 8, 10)
    assert len(pickle.dumps(images)) < 3000
    assert torch.equal(pickle.loads(pickle.dumps(images))[:], images[:])


def test_too_little_disk_space_raises_before_decoding(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    with pytest.raises(
        ValueError, match=r"12 images of 240 bytes need 0\.0 MB .* set dataset\.cache"
    ):
        build(tmp_path, folder)
    assert not CountingDecoder.calls


def test_disk_that_fills_up_keeps_decoded_images(tmp_path, folder, monkeypatch):
    commit_every_file(monkeypatch)
    write, written = CacheIndex.write, []

    def full(self, path):
        if len(written) == 8:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(self, path)

    monkeypatch.setattr(CacheIndex, "write", full)
    with pytest.raises(
        ValueError, match=r"cannot be written .*No space left.* set dataset\.cache .* are kept"
    ):
        build(tmp_path, folder)
    monkeypatch.undo()
    _, images, decoded = build(tmp_path, folder)
    assert decoded == 4
    assert_decoded(folder, images)


def test_cache_folder_that_cannot_be_created_raises(tmp_path, folder):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(
        ValueError, match=r"cannot be written .*set dataset\.cache to another folder, or to null"
    ):
        build(tmp_path, folder)


class SlowDecoder(ImageDecoder):
    """Slow decoder that prints # for each image."""

    def decode(self, content):
        time.sleep(0.02)
        print(end="#", flush=True)
        return super().decode(content)


def start_build(tmp_path, root, name="log"):
    """Start a slow build in another process, whose output goes to a file; return its id."""

    def build_slowly():
        image_cache.COMMIT_SECONDS, image_cache.COMMIT_SHARE = 0.0, 1.0
        files = scan(root).files
        cache = ImageCache(tmp_path / "cache", root, SlowDecoder(*vars(DECODER).values()), 1)
        found = cache.update(files, BrokenFileLimit(len(files), 0.1, False), True)
        print("@" * len(found.records), flush=True)

    return fork(tmp_path / name, build_slowly)


@pytest.mark.slow
def test_killed_build_resumes_where_it_stopped(tmp_path):
    root = tmp_path / "images"
    fill(root, 60)
    process = start_build(tmp_path, root)
    wait_until(
        lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().count("#") >= 30
    )
    kill(process)
    num_decoded = (tmp_path / "log").read_text().count("#")
    _, images, decoded = build(tmp_path, root)
    assert len(images) == 60 and 60 - num_decoded <= decoded <= 60 - 8
    assert_decoded(root, images)


@pytest.mark.slow
def test_two_processes_share_the_work_of_one_build(tmp_path):
    root = tmp_path / "images"
    fill(root, 40)
    names = ("first.log", "second.log")
    processes = [start_build(tmp_path, root, name) for name in names]
    assert [wait(process) for process in processes] == [0, 0]
    outputs = [(tmp_path / name).read_text() for name in names]
    assert [output.count("@") for output in outputs] == [40, 40]
    assert sum(output.count("#") for output in outputs) == 40
    assert_decoded(root, build(tmp_path, root)[1])


def commit_every_file(monkeypatch):
    monkeypatch.setattr(image_cache, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(image_cache, "COMMIT_SHARE", float("inf"))


def count_writes(monkeypatch):
    """Return a list that collects the number of records of each index written from now on."""
    sizes, write = [], CacheIndex.write

    def record(self, path):
        sizes.append(len(self.records))
        write(self, path)

    monkeypatch.setattr(CacheIndex, "write", record)
    return sizes


def test_index_is_committed_during_the_build(tmp_path, folder, monkeypatch):
    commit_every_file(monkeypatch)
    sizes = count_writes(monkeypatch)
    build(tmp_path, folder)
    assert sizes == [*range(1, 13), 12]


def test_slow_commits_happen_less_often(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(image_cache, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(image_cache, "COMMIT_SHARE", 1e-6)
    sizes = count_writes(monkeypatch)
    build(tmp_path, folder)
    assert sizes == [1, 12]


def test_index_never_contains_rows_that_are_not_on_disk(tmp_path, folder, monkeypatch):
    commit_every_file(monkeypatch)
    write, checked_sizes = CacheIndex.write, []

    def check_array(self, path):
        write(self, path)
        size = (path.parent / self.array).stat().st_size
        checked_sizes.append(size)
        assert size == self.num_rows * ROW

    monkeypatch.setattr(CacheIndex, "write", check_array)
    build(tmp_path, folder)
    assert len(checked_sizes) == 13


def test_leftovers_of_a_killed_writer_are_removed(tmp_path, folder):
    build(tmp_path, folder)
    for name in ("index.json.1.partial", "pixels-ab.1.partial", "pixels-ab"):
        (tmp_path / "cache" / name).write_bytes(b"half")
    with open(array_of_index(tmp_path), "ab") as file:
        file.write(b"half a row")
    fill(folder, 1, start=30)
    assert_decoded(folder, build(tmp_path, folder)[1])
    names = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert names == ["index.json", "lock", array_path(tmp_path).name, "settings.json"]
    assert array_path(tmp_path).stat().st_size == 13 * ROW


def array_of_index(tmp_path):
    """Return the path of the array that the index names."""
    return tmp_path / "cache" / CacheIndex.read(tmp_path / "cache" / "index.json").array
