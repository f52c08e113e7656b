"""Find the image files of a folder, with splits and classes. File contents are not read."""

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
    """A file whose name has the suffix of an image format."""

    path: str  # relative to the folder, separated by "/"
    num_bytes: int
    mtime_ns: int  # modification time


class SkippedFile(NamedTuple):
    """A file or folder that is not used, with the reason."""

    path: str
    reason: str


class FolderLabels(NamedTuple):
    """Split and class of an image, from the folders that contain it."""

    split: str | None  # train, val or test; None: assigned by content hash
    class_name: str  # empty if the image has no class folder


def scan(root: Path) -> tuple[list[ImageFile], list[SkippedFile]]:
    """List all image files below `root`, and all files and folders that cannot be read.

    Both lists are sorted by path. Hidden folders are included and links are followed. A folder that
    is reached twice through links is listed once, under its real name if that is below `root`. Run
    folders of vaegan (with a subfolder .hydra) are skipped.
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
    """Return the sorted entries of a folder; none for a visited folder or a run folder."""
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
    """True for a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inspect_file(entry: os.DirEntry[str], path: str) -> ImageFile | SkippedFile:
    """Return a regular file, or the reason to skip it. Pipes and devices are not opened."""
    try:
        if entry.is_file():
            status = entry.stat()
            return ImageFile(path, status.st_size, status.st_mtime_ns)
        return SkippedFile(path, "a broken link" if entry.is_symlink() else "not a regular file")
    except OSError as error:
        return SkippedFile(path, str(error.strerror))


def label_by_folders(paths: Sequence[str]) -> Iterator[FolderLabels | None]:
    """Yield the split and class of each path; None for an image outside of the split folders.

    Folders train/, val/ (also valid/ or validation/) and test/, in upper or lower case, are split
    folders if train/ exists, together with val/ or test/ or as the only folder. Other folders
    directly below the root, or below a split folder, are classes. A single folder that contains all
    images counts as the root.
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
