import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan.data.images.scanning import FolderLabels, label_by_folders, scan


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_images_are_found_by_suffix_at_any_depth(tmp_path):
    found = [
        "a.jpg",
        "b/c/d/e.PNG",
        "b/.hidden/f.webp",
        "Katze \U0001f408/日本.Jpeg",
        ".g.gif",
        "h.tar.bmp",
        "i i.tiff",
    ]
    touch(tmp_path, *found, "read.txt", "j.jpg.zip", "jpg", "b/thumbs.db")
    files, skipped = scan(tmp_path)
    assert [file.path for file in files] == sorted(found) and not skipped
    assert all(file.num_bytes == 1 and file.mtime_ns > 0 for file in files)


def test_names_that_are_not_valid_utf8_are_listed(tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    with open(raw, "wb") as file:
        file.write(b"x")
    (found,) = scan(tmp_path)[0]
    assert (tmp_path / found.path).read_bytes() == b"x"


def test_links_are_followed_without_loops(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root, "a/x.png")
    touch(elsewhere, "y.png")
    (root / "a" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    (root / "0_again").symlink_to(root / "a")
    (root / "out").symlink_to(elsewhere)
    (root / "z.png").symlink_to(elsewhere / "y.png")
    files, skipped = scan(root)
    assert [file.path for file in files] == ["a/x.png", "out/y.png", "z.png"] and not skipped


def test_irregular_files_are_skipped(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    files, skipped = scan(tmp_path)
    assert [file.path for file in files] == ["a.png"]
    assert [(path, reason) for path, reason in skipped if path != "loop.png"] == [
        ("lost.png", "a broken link"),
        ("pipe.png", "not a regular file"),
    ]
    assert len(skipped) == 3


def test_run_folders_are_left_out(tmp_path):
    touch(tmp_path, "a.png", "run/vae/images/b.png", "run/.hydra/config.yaml")
    assert [file.path for file in scan(tmp_path)[0]] == ["a.png"]


def test_unreadable_folder_is_skipped(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.png", "b/y.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, skipped = scan(tmp_path)
    assert [file.path for file in files] == ["b/y.png"]
    assert skipped == [("a", "the folder cannot be read (Permission denied)")]


@pytest.mark.parametrize(
    "paths, expected",
    [
        (["a.png", "b.png"], [(None, ""), (None, "")]),
        (["cat/a.png", "dog/x/b.png"], [(None, "cat"), (None, "dog")]),
        (["train/cat/a.png", "val/cat/b.png"], [("train", "cat"), ("val", "cat")]),
        (
            ["train/a.png", "valid/b.png", "test/c/d.png"],
            [("train", ""), ("val", ""), ("test", "c")],
        ),
        (["train/cat/x/a.png"], [("train", "cat")]),
        (["Train/a.png", "TEST/b/c.png"], [("train", ""), ("test", "b")]),
        (
            ["imagenet/train/cat/a.png", "imagenet/val/dog/b.png"],
            [("train", "cat"), ("val", "dog")],
        ),
        (["all/of/cat/a.png", "all/of/dog/b.png"], [(None, "cat"), (None, "dog")]),
        (
            ["train/a.png", "validation/b.png", "docs/c.png", "d.png"],
            [("train", ""), ("val", ""), None, None],
        ),
        (["train/a.png", "car/b.png"], [(None, "train"), (None, "car")]),  # train is a class
        (["val/a.png", "test/b.png"], [(None, "val"), (None, "test")]),
    ],
)
def test_folders_are_splits_or_classes(paths, expected):
    assert list(label_by_folders(paths)) == [item and FolderLabels(*item) for item in expected]


@given(
    st.lists(
        st.lists(
            st.sampled_from(["train", "val", "test", "cat", "x", "..."]), min_size=1, max_size=4
        )
    )
)
def test_each_path_is_labeled_once(folders):
    paths = ["/".join([*names, "a.png"]) for names in folders]
    found = list(label_by_folders(paths))
    assert len(found) == len(paths)
    assert len({labels.split is None for labels in found if labels}) < 2, (
        "splits by folder and by content hash are mixed"
    )
