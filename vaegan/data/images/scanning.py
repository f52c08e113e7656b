"""Image files, splits and classes in a folder. Only names are read here, no content."""

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
    """A file with the name of an image."""

    path: str  # relative to the folder, with "/"
    num_bytes: int
    mtime_ns: int  # time of its last modification


class SkippedFile(NamedTuple):
    """A file or folder that is not used."""

    path: str
    reason: str


class FolderLabels(NamedTuple):
    """Split and class of an image, by the folders that it is in."""

    split: str | None  # train, val, test; None: its content decides
    class_name: str  # empty for none


def scan(root: Path) -> tuple[list[ImageFile], list[SkippedFile]]:
    """List all files below `root` with the name of an image, and what cannot be read, both sorted
    by path.

    Hidden folders are included and links followed. A folder that is reached twice, by a link to
    itself or to another one, is listed once, under its real name if that is below `root`. Folders
    of this program's runs are left out.
    """
    files: list[ImageFile] = []
    skipped: list[SkippedFile] = []
    visited: set[tuple[int, int]] = set()
    folders = [""]
    links: list[str] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            entries = list_folder(root / folder, visited)
        except OSError as error:
            skipped.append(SkippedFile(folder, f"the folder cannot be read ({error.strerror})"))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found = inspect_file(entry, path)
                if isinstance(found, ImageFile):
                    files.append(found)
                else:
                    skipped.append(found)
    return sorted(files), sorted(skipped)


def list_folder(folder: Path, visited: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Return the entries of a folder; none for a visited folder and for that of a run."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return []
    visited.add(identity)
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    is_run = any(entry.name == ".hydra" for entry in entries)
    return [] if is_run else entries


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder and a link to one, but not for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inspect_file(entry: os.DirEntry[str], path: str) -> ImageFile | SkippedFile:
    """Accept ordinary files only. Pipes and devices, which may never end, are not opened."""
    try:
        if entry.is_file():
            status = entry.stat()
            return ImageFile(path, status.st_size, status.st_mtime_ns)
        return SkippedFile(path, "a broken link" if entry.is_symlink() else "not an ordinary file")
    except OSError as error:
        return SkippedFile(path, str(error.strerror))


def label_by_folders(paths: Sequence[str]) -> Iterator[FolderLabels | None]:
    """Return split and class of each path; None for an image outside of train/, val/ and test/
    where these exist.

    They are splits, in upper or lower case, if there is a folder train/ as well as val/ or test/,
    or nothing but train/. Other folders directly below the root, or below such a split, are
    classes. A folder that contains all others counts as the root.
    """
    parts = [path.split("/") for path in paths]
    while all(len(part) > 1 for part in parts):
        top_folders = {part[0] for part in parts}
        if len(top_folders) != 1 or top_folders.pop().casefold() in SPLIT_FOLDERS:
            break
        parts = [part[1:] for part in parts]
    top_names = {part[0].casefold() for part in parts if len(part) > 1}
    has_other_split = len(top_names & SPLIT_FOLDERS.keys()) > 1
    has_splits = "train" in top_names and (len(top_names) == 1 or has_other_split)
    for *folders, _ in parts:
        top = folders[0].casefold() if folders else ""
        if not has_splits:
            yield FolderLabels(None, folders[0] if folders else "")
        elif top in SPLIT_FOLDERS:
            yield FolderLabels(SPLIT_FOLDERS[top], folders[1] if len(folders) > 1 else "")
        else:
            yield None
