"""What is in a folder of pictures: files, splits, classes. Only names are read here, no content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vaegan.data.images.decoding import SUFFIXES

SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


class ImageFile(NamedTuple):
    """A file that may be a picture."""

    path: str  # from the folder on, with "/"
    num_bytes: int
    mtime_ns: int  # of its last modification


class SkippedFile(NamedTuple):
    """A file or folder that is not used."""

    path: str
    reason: str


def scan(root: Path) -> tuple[list[ImageFile], list[SkippedFile]]:
    """All files below `root` whose names end as a picture's do, sorted by path, and what cannot be looked at.

    Hidden folders count, and links are followed; a folder that is reached twice, by a link to itself or to another
    one, is read once, under its real name if that is below `root`. The folders of our own runs are passed over.
    """
    files: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    seen: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
                if any(entry.name == ".hydra" for entry in entries):
                    continue
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if is_folder(entry):
                        (links if entry.is_symlink() else folders).append(path)
                    elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                        look_at(entry, path, files, skipped)
        except OSError as error:
            skipped.append(SkippedFile(folder, f"the folder cannot be read ({error.strerror})"))
    return sorted(files), sorted(skipped)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; not for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def look_at(
    entry: os.DirEntry[str], path: str, files: list[ImageFile], skipped: list[SkippedFile]
) -> None:
    """Put a file into one of the two lists: pipes and devices would block or never end, and are not opened."""
    try:
        if not entry.is_file():
            skipped.append(
                SkippedFile(path, "a link to nothing" if entry.is_symlink() else "no ordinary file")
            )
            return
        status = entry.stat()
        mtime_ns = max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))  # what a database can keep
        files.append(ImageFile(path, status.st_size, mtime_ns))
    except OSError as error:
        skipped.append(SkippedFile(path, str(error.strerror)))


class Place(NamedTuple):
    """What the folders around a picture say of it."""

    split: str | None  # train, val, test; None: its content decides
    class_name: str  # empty for none


def places(paths: Sequence[str]) -> Iterator[Place | None]:
    """Split and class of each path; None for a picture that lies outside of train/, val/ and test/ where these exist.

    They are splits, whatever their case, where there is a folder train/ beside val/ or test/, or nothing but train/;
    any other folders directly below the root, or below such a split, are classes. A folder that holds all others
    counts as the root.
    """
    parts = [path.split("/") for path in paths]
    while all(len(part) > 1 for part in parts) and len(top := {part[0] for part in parts}) == 1:
        if top.pop().casefold() in SPLIT_FOLDERS:
            break
        parts = [part[1:] for part in parts]
    top = {part[0].casefold() for part in parts if len(part) > 1}
    has_splits = "train" in top and (len(top) == 1 or len(top & SPLIT_FOLDERS.keys()) > 1)
    for *folders, _ in parts:
        if not has_splits:
            yield Place(None, folders[0] if folders else "")
        elif folders and folders[0].casefold() in SPLIT_FOLDERS:
            yield Place(
                SPLIT_FOLDERS[folders[0].casefold()], folders[1] if len(folders) > 1 else ""
            )
        else:
            yield None
