import os

import pytest

from vaegan.data.images.scanning import scan


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def test_images_are_found_by_suffix_at_any_depth(tmp_path):
    found = [
        "a.jpg",
        "b/c/d/e.PNG",
        "Katze \U0001f408/日本.Jpeg",
        "h.tar.bmp",
        "i i.tiff",
    ]
    touch(tmp_path, *found, "read.txt", "j.jpg.zip", "jpg", "b/thumbs.db")
    files, skipped, _ = scan(tmp_path)
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
    files, skipped, _ = scan(root)
    assert [file.path for file in files] == ["a/x.png", "out/y.png", "z.png"] and not skipped


def test_irregular_files_are_skipped(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "folder.png").mkdir()
    files, skipped, _ = scan(tmp_path)
    assert [file.path for file in files] == ["a.png"]
    assert [(path, reason) for path, reason in skipped if path != "loop.png"] == [
        ("lost.png", "a broken link"),
        ("pipe.png", "not a regular file"),
    ]
    assert len(skipped) == 3


def test_run_folders_are_left_out(tmp_path):
    touch(tmp_path, "a.png", "run/vae/images/b.png", "run/.hydra/config.yaml")
    files, _, left_out = scan(tmp_path)
    assert [file.path for file in files] == ["a.png"]
    assert left_out == [("run/vae/images/b.png", "run folders of vaegan")]


def test_unreadable_folder_is_skipped(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.png", "b/y.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    files, skipped, _ = scan(tmp_path)
    assert [file.path for file in files] == ["b/y.png"]
    assert skipped == [("a", "the folder cannot be read (Permission denied)")]


@pytest.mark.parametrize(
    "path, reason",
    [
        ("cat/._1.png", "macOS metadata"),
        ("__MACOSX/photos/train/a/1.png", "macOS metadata"),
        ("cat/.AppleDouble/1.jpg", "macOS metadata"),
        ("cat/@eaDir/1.jpg", "thumbnails"),
        (".thumbnails/normal/1.png", "thumbnails"),
        (".Trash-1000/files/1.png", "trash and system folders"),
        ("$RECYCLE.BIN/S-1/1.png", "trash and system folders"),
        ("#recycle/1.png", "trash and system folders"),
        ("cat/.ipynb_checkpoints/1-checkpoint.png", "hidden files and folders"),
        ("cat/.git/1.gif", "hidden files and folders"),
        (".1.png", "hidden files and folders"),
        ("cat/1.heic", "unsupported formats"),
        ("1.SVG", "unsupported formats"),
        ("scan.dcm", "unsupported formats"),
    ],
)
def test_files_that_are_not_part_of_the_data_set_are_left_out(tmp_path, path, reason):
    touch(tmp_path, "cat/a.png", path)
    files, skipped, left_out = scan(tmp_path)
    assert [file.path for file in files] == ["cat/a.png"] and not skipped
    assert left_out == [(path, reason)]


def test_notes_and_labels_are_not_mentioned(tmp_path):
    notes = ["read.txt", "a.json", ".DS_Store", "Thumbs.db", "__MACOSX/._a.txt", "desktop.ini"]
    touch(tmp_path, "a.png", *notes)
    files, skipped, left_out = scan(tmp_path)
    assert len(files) == 1 and not skipped and not left_out


def test_links_to_images_are_used_although_a_hidden_link_leads_to_them_too(tmp_path):
    touch(tmp_path / "elsewhere", "x.png")
    touch(tmp_path / "root", "a.png")
    (tmp_path / "root" / ".0").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere")
    files, _, left_out = scan(tmp_path / "root")
    assert [file.path for file in files] == ["a.png", "images/x.png"] and not left_out


def test_root_may_be_a_hidden_folder(tmp_path):
    touch(tmp_path / ".data", "a.png")
    assert [file.path for file in scan(tmp_path / ".data").files] == ["a.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_trash_is_not_reported(tmp_path):
    touch(tmp_path, "a.png", ".Trash-1000/b.png")
    (tmp_path / ".Trash-1000").chmod(0)
    try:
        assert not scan(tmp_path).unreadable
    finally:
        (tmp_path / ".Trash-1000").chmod(0o700)
