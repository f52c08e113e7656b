import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.image_files import KINDS, content, draw, encode, encode_12_bits, fill
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
    assert sorted(found["val"]) == [f"val/b/{i:04d}.png" for i in range(60, 65)]
    assert 3 <= len(found["test"]) <= 25 and all(
        path.startswith("train/") for path in found["test"] + found["train"]
    )
    assert len(found["test"] + found["train"]) == 60 and (source.split("val").labels == 1).all()
    assert f"left out of {root}: outside the split folders: 2 (.png 2)" in caplog.text


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
        (lambda root: root.mkdir(), r"contains no image files \(.*\.bmp, \.gif"),
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
        ("cache", ""),
        ("val_fraction", 0.0),
        ("test_fraction", 1.0),
        ("test_fraction", 0.95),
        ("num_threads", 0),
    ],
)
def test_invalid_settings_raise(key, value):
    with pytest.raises(ValueError, match=f"{key} must be"):
        ImageFolder.Config(**{"root": "images", key: value})


def log_of(caplog, root, **config):
    """Return the log of a data set's preparation, and its source."""
    caplog.set_level("INFO")
    source = make_source(root, **config)
    source.prepare()
    return caplog.text, source


def test_table_shows_split_class_number_and_origin_and_what_is_left_out(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root / "training" / "cat", 30)
    fill(root / "training" / "dog", 10, start=30)
    fill(root / "testing" / "cat", 5, start=40)
    (root / "a.heic").write_bytes(b"x")
    (root / ".thumbnails").mkdir()
    (root / ".thumbnails" / "a.png").write_bytes(b"x")
    text, source = log_of(caplog, root)
    num_val = len(source.paths["val"])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "split class images from" in lines
    assert f"train cat {30 - num_cats(source, 'val')} training/cat" in lines
    assert f"val cat {num_cats(source, 'val')} training/cat (20.0% by content hash)" in lines
    assert "test cat 5 testing/cat" in lines
    assert num_val + len(source.paths["train"]) == 40
    summary = "unsupported formats: 1 (.heic 1); thumbnails: 1 (.png 1)"
    reversed_summary = "thumbnails: 1 (.png 1); unsupported formats: 1 (.heic 1)"
    assert summary in text or reversed_summary in text


def num_cats(source, split):
    return sum("/cat/" in path for path in source.paths[split])


def test_table_escapes_control_characters(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root / "\x1b[31mred\n", 30)
    fill(root / "dog", 30, start=30)
    text, _ = log_of(caplog, root)
    assert "\x1b" not in text and "\\x1b[31mred\\n" in text


def test_table_summarizes_many_classes(tmp_path, caplog):
    root = tmp_path / "images"
    for i in range(8):
        fill(root / f"class{i}", 20, start=20 * i)
    text, source = log_of(caplog, root)
    sizes = [sum(f"class{i}/" in path for path in source.paths["train"]) for i in range(8)]
    assert f"8 classes of {min(sizes)} to {max(sizes)} images" in text
    assert len([line for line in text.splitlines() if line.startswith("  train")]) == 1


@pytest.mark.parametrize("num_images", [100, 400])
def test_default_fractions_suit_small_folders(tmp_path, num_images):
    root = tmp_path / "images"
    fill(root, num_images, width=8, height=8)
    source = make_source(root, val_fraction=None, test_fraction=None)
    source.prepare()
    for split in ("val", "test"):
        standard_deviation = (0.16 * num_images) ** 0.5
        expected = pytest.approx(num_images / 5, abs=3 * standard_deviation)
        assert len(source.paths[split]) == expected
    assert source.fractions == {"val": 0.2, "test": 0.2}


def test_fraction_that_the_user_sets_wins(tmp_path):
    root = tmp_path / "images"
    fill(root, 60, width=8, height=8)
    source = make_source(root, val_fraction=0.5, test_fraction=None)
    source.prepare()
    assert source.fractions == {"val": 0.5, "test": 0.2}
    assert len(source.paths["val"]) > 20


def test_fewer_than_50_images_are_refused_with_advice(tmp_path):
    root = tmp_path / "images"
    fill(root, 49, width=8, height=8)
    with pytest.raises(ValueError, match=r"too few .* \(49\).*set dataset.val_fraction and"):
        make_source(root, val_fraction=None, test_fraction=None).prepare()


def test_small_folder_with_all_splits_is_used(tmp_path):
    root = tmp_path / "images"
    for i, name in enumerate(("train", "val2017", "testing")):
        fill(root / name, 5, start=5 * i)
    source = make_source(root, val_fraction=None, test_fraction=None)
    source.prepare()
    assert [len(paths) for paths in source.paths.values()] == [5, 5, 5]


def test_files_next_to_the_data_set_do_not_change_its_splits(tmp_path):
    root = tmp_path / "images"
    for i, name in enumerate(("train", "val", "test")):
        fill(root / "photos" / name / "a", 5, start=5 * i)
    alone = make_source(root)
    alone.prepare()
    (root / "__MACOSX" / "photos" / "train" / "a").mkdir(parents=True)
    for i in range(4):
        (root / "__MACOSX" / "photos" / "train" / "a" / f"._{i}.png").write_bytes(b"\0\5\x16\7")
    fill(root / "samples", 3, start=50)
    (root / "Thumbs.jpg").write_bytes(content("rgb.jpg"))
    with_neighbors = make_source(root)
    assert with_neighbors.prepare() == [] and with_neighbors.paths == alone.paths
    assert len(with_neighbors.left_out) == 4 + 3 + 1


def test_images_copied_from_a_mac_are_used(tmp_path):
    root = tmp_path / "images"
    for path in fill(root, 60):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(4092))
    source = make_source(root)
    assert source.prepare() == [] and sum(map(len, source.paths.values())) == 60


def test_folder_of_formats_that_are_not_read_names_them(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    (root / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no image files .*unsupported formats: 1 \(.heic"):
        make_source(root).prepare()


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_12_bits_in_16_bit_files_give_a_warning_and_a_key_scales_them(
    tmp_path, caplog, cache, format
):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(60):
        name = f"{i}.{'png' if format == 'PNG' else 'tif'}"
        (root / name).write_bytes(encode_12_bits(i, format, 10, 10))
    config = {"channels": 1, **({} if cache else {"cache": None})}
    for _ in range(2):  # again, with a complete cache
        caplog.clear()
        text, source = log_of(caplog, root, **config)
        assert "nearly all of the 60 16-bit images stay below level 4096" in text
        assert "set dataset.bit_depth=12" in text
    text, scaled = log_of(caplog, root, bit_depth=12, **config)
    assert source.split("train").images[:].max() <= 16
    assert scaled.split("train").images[:].max() >= 240


def test_levels_of_usual_images_give_no_warning(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root, 40)
    for i in range(20):
        (root / f"deep{i}.png").write_bytes(encode(draw("I;16", seed=i)))
    log_of(caplog, root)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_nearly_constant_images_give_a_warning(tmp_path, caplog):
    root = tmp_path / "images"
    root.mkdir()
    for i in range(60):
        (root / f"{i}.png").write_bytes(encode(draw(seed=i).point(lambda level: level // 16)))
    text, _ = log_of(caplog, root, cache=None)
    assert "sampled training images are nearly constant" in text


def test_stacks_and_32_bit_files_are_reported_with_and_without_a_cache(tmp_path, caplog):
    root = tmp_path / "images"
    fill(root, 40)
    stack = encode(draw(), "TIFF", save_all=True, append_images=[draw(seed=1)])
    (root / "stack.tif").write_bytes(stack)
    (root / "float.tif").write_bytes(encode(Image.new("F", (8, 8)), "TIFF"))
    for config in ({}, {"cache": None}):
        caplog.clear()
        text, source = log_of(caplog, root, **config)
        assert "multi-page TIFF files: 1" in text
        assert [path for path, _ in source.skipped_files()] == ["float.tif"]


FOLDERS = ["", "a", "b", ".d", "train", "Training", "val", "test", "testing", "__MACOSX", "é"]
FILES = ["good.png", "good.jpg", "cut.png", "words.jpg", "zero.gif", "read.txt", "._a.png", "b.svg"]
CONTENT = {
    "good.jpg": content("rgb.jpg"),
    "cut.png": content("rgb.png")[:-60],
    "words.jpg": b"words",
    "zero.gif": b"",
    "read.txt": b"read me",
    "._a.png": b"\0\5\x16\7",
    "b.svg": b"<svg/>",
}
PARENTS = st.lists(st.sampled_from(FOLDERS), max_size=3).map(
    lambda names: "/".join(filter(None, names))
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(PARENTS, st.integers(0, 9), st.sampled_from(FILES)), max_size=25, unique=True
    ),
    st.booleans(),
)
def test_each_image_is_in_one_split_or_skipped_or_left_out(tree, has_cache):
    """No image in a test folder is trained on, unless the layout is refused."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        root.mkdir()
        images = set()
        for parent, number, name in tree:
            (root / parent).mkdir(parents=True, exist_ok=True)
            path = f"{parent}/{number}.{name}" if name[0] != "." else f"{parent}/{name}"
            (root / path.lstrip("/")).write_bytes(CONTENT.get(name, encode(draw(seed=number))))
            if name != "read.txt":
                images.add(path.lstrip("/"))
        source = make_source(root, max_broken=1.0, **({} if has_cache else {"cache": None}))
        try:
            skipped = source.prepare()
        except ValueError as error:
            reasons = ("contains no image files", "too few images", "split_folders")
            assert any(reason in str(error) for reason in reasons)
            return
        used = sum(source.paths.values(), [])
        groups = [used, [file.path for file in skipped], [file.path for file in source.left_out]]
        listed = sum(groups, [])
        assert len(listed) == len(set(listed)) and set(listed) == images
        assert all("good" in path or ("cut" in path and not has_cache) for path in used)
        for path in source.paths["train"]:
            assert not {"test", "testing"} & set(path.split("/"))
        for split in SPLITS:
            split_images, labels, _ = source.split(split)
            assert split_images[:].shape == (len(labels), 3, 8, 8)
