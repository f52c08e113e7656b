import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.image_files import KINDS, content, draw, encode, fill
from vaegan.data.image_folder import ImageFolder

SPLITS = ("train", "val", "test")


def make_source(root, **config):
    config = {
        "image_size": 8,
        "cache": str(root.parent / "cache"),
        "val_fraction": 0.2,
        "test_fraction": 0.2,
    } | config
    return ImageFolder.Config(root=str(root), **config).build()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("settings", [{}, {"channels": 1, "image_size": [6, 12], "crop": "none"}])
def test_flat_folder_is_divided_into_three_splits(tmp_path, cache, settings):
    root = tmp_path / "images"
    fill(root, 40)
    source = make_source(root, **settings, **({} if cache else {"cache": None}))
    assert source.prepare() == []
    found = source.paths
    assert (
        sorted(sum(found.values(), [])) == sorted(os.listdir(root))
        and min(map(len, found.values())) >= 2
    )
    for split in SPLITS:
        images, labels, is_mirrored = source.split(split)
        assert len(images) == len(labels) == len(found[split]) and not is_mirrored
        assert (
            images[:].shape[1:] == source.image_shape
            and labels.dtype == torch.int64
            and (labels == 0).all()
        )
        expected = [source.decoder((root / path).read_bytes()) for path in found[split]]
        assert np.array_equal(images[:].permute(0, 2, 3, 1).numpy(), np.stack(expected))


def test_all_formats_are_used(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for kind in KINDS:
        (root / kind).write_bytes(content(kind))
    source = make_source(root, on_error="fail", val_fraction=0.3, test_fraction=0.3)
    source.prepare()
    assert sum(map(len, source.paths.values())) == len(KINDS)


def test_class_folders_give_labels(tmp_path):
    root = tmp_path / "images"
    for i, name in enumerate(("bird", "cat", "dog")):
        fill(root / name / "deeper", 12, start=20 * i)
    (root / "empty").mkdir()
    source = make_source(root)
    for split in SPLITS:
        labels, paths = source.split(split).labels, source.paths[split]
        assert [("bird", "cat", "dog")[label] for label in labels] == [
            path.split("/")[0] for path in paths
        ]


def test_split_folders_are_kept_and_a_missing_split_is_taken_from_train(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root / "train" / "a", 30)
    fill(root / "train" / "b", 30, start=30)
    fill(root / "val" / "b", 5, start=60)
    fill(root, 2, start=70)
    source = make_source(root)
    source.prepare()
    found = source.paths
    assert found["val"] == [f"val/b/{i:04d}.png" for i in range(60, 65)]
    assert 3 <= len(found["test"]) <= 25 and all(
        path.startswith("train/") for path in found["test"] + found["train"]
    )
    assert len(found["test"] + found["train"]) == 60 and (source.split("val").labels == 1).all()
    assert "2 images in" in caplog.text and "are outside of train/, val/ and test/" in caplog.text


def test_splits_stay_when_images_are_added_or_renamed(tmp_path):
    root = tmp_path / "images"
    paths = fill(root, 60)
    source = make_source(root)
    source.prepare()
    before = source.paths
    shutil.copy(paths[0], root / "twin.png")
    paths[1].rename(root / "renamed.png")
    fill(root, 30, start=100)
    source_again = make_source(root)
    source_again.prepare()
    after = source_again.paths
    for split in SPLITS:
        assert {path for path in before[split] if path != "0001.png"} <= set(after[split])
    split_of = {path: split for split in SPLITS for path in after[split]}
    assert split_of["twin.png"] == split_of["0000.png"]
    assert split_of["renamed.png"] == next(split for split in SPLITS if "0001.png" in before[split])
    other = make_source(root, split_seed=1)
    other.prepare()
    assert other.paths != after


def test_val_fraction_does_not_change_the_test_split(tmp_path):
    root = tmp_path / "images"
    fill(root / "train", 80)
    source = make_source(root)
    source.prepare()
    before = {split: set(paths) for split, paths in source.paths.items()}
    other = make_source(root, val_fraction=0.1)
    other.prepare()
    assert set(other.paths["test"]) == before["test"] and set(other.paths["val"]) < before["val"]
    fill(root / "val", 3, start=90)
    with_val = make_source(root)
    with_val.prepare()
    assert set(with_val.paths["test"]) == before["test"]
    assert set(with_val.paths["train"]) == before["train"] | before["val"]


def test_split_folder_of_broken_images_counts_as_a_split(tmp_path):
    root = tmp_path / "images"
    fill(root / "train", 40)
    (root / "val").mkdir()
    (root / "val" / "broken.png").write_bytes(b"words")
    with pytest.raises(ValueError, match=r"too few images for three splits .*val 0"):
        make_source(root).prepare()


def test_run_folders_are_left_out(tmp_path):
    root = tmp_path / "images"
    fill(root / "a", 30)
    fill(root / "outputs" / "run" / "images", 5, start=50)
    (root / "outputs" / "run" / ".hydra").mkdir()
    source = make_source(root)
    source.prepare()
    assert sum(map(len, source.paths.values())) == 30 and (source.split("train").labels == 0).all()


def test_relative_root_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ImageFolder.Config(root="images").root == str(tmp_path / "images")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ImageFolder.Config(root="~/images").root == str(tmp_path / "images")


def test_random_crops_have_a_margin(tmp_path):
    root = tmp_path / "images"
    fill(root, 40)
    images, _, is_mirrored = make_source(root, image_size=[8, 17], crop="random", flip=True).split(
        "train"
    )
    assert images[:].shape[1:] == (3, 9, 20) and is_mirrored


def test_settings_that_change_the_pixels_use_separate_caches(tmp_path):
    root = tmp_path / "images"
    fill(root, 40)
    for config in (
        {},
        {"image_size": 12},
        {"channels": 1},
        {"crop": "none"},
        {"crop": "random"},
        {"background": [0, 0, 0]},
    ):
        make_source(root, **config).prepare()
    for config in (
        {"split_seed": 3},
        {"val_fraction": 0.3},
        {"on_error": "fail"},
        {"num_threads": 1},
    ):
        make_source(root, **config).prepare()
    assert len(os.listdir(tmp_path / "cache")) == 6


def test_default_cache_is_in_the_user_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    fill(tmp_path / "images", 40)
    make_source(tmp_path / "images", cache="auto").prepare()
    assert len(os.listdir(tmp_path / "home" / "vaegan" / "images")) == 1


def test_malicious_files_are_skipped(tmp_path):
    root = tmp_path / "images"
    fill(root / "good", 40)
    bad = root / "bad"
    bad.mkdir()
    (bad / "zero.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("#!/bin/sh\ntouch /tmp/owned\n")
    (bad / "cut.jpg").write_bytes(content("rgb.jpg")[:-300])
    (bad / "bomb.png").write_bytes(encode(draw(width=300, height=200)))
    (bad / "gone.png").symlink_to(bad / "nowhere")
    os.mkfifo(bad / "pipe.png")
    (bad / "loop").symlink_to(bad)
    (bad / "really_a_png.jpg").write_bytes(content("rgb.png"))
    (root / "no images").mkdir()
    before = sorted(os.walk(root))
    source = make_source(root, max_pixels=50_000, max_broken=0.2)
    skipped = source.prepare()
    assert sorted(os.path.basename(path) for path, _ in skipped) == [
        "bomb.png", "cut.jpg", "gone.png", "pipe.png", "text.jpg", "zero.jpg",
    ]  # fmt: skip
    assert sum(map(len, source.paths.values())) == 41 and all(reason for _, reason in skipped)
    assert sorted(os.walk(root)) == before, "something was written to the image folder"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: None, r"is not a folder; set it to the folder of your images"),
        (lambda root: root.write_text("file"), r"is not a folder"),
        (lambda root: root.mkdir(), r"contains no image files \(\.bmp, \.gif"),
        (
            lambda root: fill(root, 1),
            r"too few images for three splits .*raise dataset\.val_fraction",
        ),
        (
            lambda root: [path.write_bytes(b"") for path in fill(root, 3)],
            r"files cannot be used, more than",
        ),
    ],
)
def test_unusable_folders_raise(tmp_path, make, message):
    make(tmp_path / "images")
    with pytest.raises(ValueError, match=message):
        make_source(tmp_path / "images").prepare()


def test_empty_folder_does_not_clear_the_cache(tmp_path):
    root = tmp_path / "images"
    fill(root, 40)
    make_source(root).prepare()
    root.rename(tmp_path / "away")
    root.mkdir()
    with pytest.raises(ValueError, match="contains no image files"):
        make_source(root).prepare()
    (pixels,) = (tmp_path / "cache").glob("*/pixels-*")
    assert pixels.stat().st_size == 40 * 3 * 8 * 8


@pytest.mark.parametrize(
    "key, value",
    [
        ("root", ""),
        ("image_size", 3),
        ("image_size", [64]),
        ("image_size", "64"),
        ("image_size", True),
        ("channels", 4),
        ("crop", "middle"),
        ("background", [0, 0, 256]),
        ("background", [0]),
        ("max_pixels", 0),
        ("max_pixels", 10**9),
        ("on_error", "ignore"),
        ("max_broken", 1.5),
        ("val_fraction", 0.0),
        ("test_fraction", 1.0),
        ("test_fraction", 0.95),
        ("num_threads", 0),
    ],
)
def test_invalid_settings_raise(key, value):
    with pytest.raises(ValueError, match=f"{key} must be"):
        ImageFolder.Config(**{"root": "images", key: value})


FOLDERS = st.sampled_from(["", "a/", "b/c/", ".d/", "train/", "val/", "train/x/", "é/"])
FILES = st.sampled_from(["good.png", "good.jpg", "cut.png", "words.jpg", "zero.gif", "read.txt"])
CONTENT = {
    "cut.png": content("rgb.png")[:-60],
    "words.jpg": b"words",
    "zero.gif": b"",
    "read.txt": b"read me",
    "good.jpg": content("rgb.jpg"),
}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(FOLDERS, st.integers(0, 9), FILES), max_size=25, unique=True), st.booleans()
)
def test_each_image_file_is_used_skipped_or_outside(tree, has_cache):
    """Each image file is in one split, or is skipped, or is outside of the split folders."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        for parent, number, name in tree:
            (root / parent).mkdir(parents=True, exist_ok=True)
            data = CONTENT.get(name) or (b"" if name == "zero.gif" else encode(draw(seed=number)))
            (root / f"{parent}{number}{name}").write_bytes(data)
        source = make_source(root, max_broken=1.0, **({} if has_cache else {"cache": None}))
        try:
            skipped = source.prepare()
        except ValueError as error:
            assert "contains no image files" in str(error) or "too few images" in str(error)
            return
        used = sum(source.paths.values(), [])
        assert len(used) == len(set(used)) and not set(used) & {file.path for file in skipped}
        tops = {parent.split("/")[0] for parent, _, name in tree if parent and name != "read.txt"}
        has_splits = {"train", "val"} <= tops or tops == {"train"}
        known = [
            (parent, f"{parent}{number}{name}")
            for parent, number, name in tree
            if name != "read.txt"
        ]
        inside = {
            path
            for parent, path in known
            if not has_splits or parent.split("/")[0] in ("train", "val")
        }
        assert {file.path for file in skipped} | set(used) == inside
        good = {path for path in inside if "good" in path or ("cut" in path and not has_cache)}
        assert set(used) == good
        for split in SPLITS:
            images, labels, _ = source.split(split)
            assert images[:].shape == (len(labels), 3, 8, 8)
