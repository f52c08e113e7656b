"""Find the image files of a folder. File contents are not read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vaegan.data.images.left_out import (
    RUN_FOLDERS,
    LeftOutFile,
    file_reason,
    folder_reason,
    is_like_image,
)


class ImageFile(NamedTuple):
    """A file whose name has the suffix of an image format."""

    path: str  # relative to the folder, separated by "/"
    num_bytes: int
    mtime_ns: int  # modification time


class SkippedFile(NamedTuple):
    """A file or folder that is not used, with the reason."""

    path: str
    reason: str


class FolderScan(NamedTuple):
    """Files of a folder, each list sorted by path."""

    files: list[ImageFile]
    unreadable: list[SkippedFile]  # files and folders that cannot be read
    left_out: list[LeftOutFile]  # files that look like images but are not part of the data set


def scan(root: Path) -> FolderScan:
    """List all image files below `root`.

    Links are followed. A folder that is reached twice through links is listed once, under its real
    name if that is below `root`. Hidden, system and trash folders, and run folders of vaegan (with
    a subfolder .hydra), are searched only for the files to list as left out.
    """
    found = FolderScan([], [], [])
    visited: set[tuple[int, int]] = set()
    # folders to search, with the reason to leave out their files, if any
    folders: list[tuple[str, str | None]] = [("", None)]
    links: list[tuple[str, str | None]] = []
    while folders or links:
        folder, reason = folders.pop() if folders else links.pop(0)
        try:
            entries = list_folder(root / folder, visited)
        except OSError as error:
            if reason is None:
                message = f"the folder cannot be read ({error.strerror})"
                found.unreadable.append(SkippedFile(folder, message))
            continue
        if any(entry.name == ".hydra" for entry in entries):
            reason = reason or RUN_FOLDERS
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_folder(entry):
                subfolder = (path, reason or folder_reason(entry.name))
                if not entry.is_symlink():
                    folders.append(subfolder)
                elif subfolder[1] is None:
                    links.append(subfolder)
            elif is_like_image(entry.name):
                add_file(found, entry, path, reason)
    return FolderScan(sorted(found.files), sorted(found.unreadable), sorted(found.left_out))


def list_folder(folder: Path, visited: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Return the sorted entries of a folder; none for a folder that was visited before."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in visited:
        return []
    visited.add(identity)
    with os.scandir(folder) as listing:
        return sorted(listing, key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """True for a folder or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def add_file(
    found: FolderScan, entry: os.DirEntry[str], path: str, folder_reason: str | None
) -> None:
    """Add a file that looks like an image to the list that it belongs to."""
    reason = folder_reason or file_reason(entry.name)
    if reason:
        found.left_out.append(LeftOutFile(path, reason))
        return
    inspected = inspect_file(entry, path)
    if isinstance(inspected, ImageFile):
        found.files.append(inspected)
    else:
        found.unreadable.append(inspected)


def inspect_file(entry: os.DirEntry[str], path: str) -> ImageFile | SkippedFile:
    """Return a regular file, or the reason to skip it. Pipes and devices are not opened."""
    try:
        if entry.is_file():
            status = entry.stat()
            return ImageFile(path, status.st_size, status.st_mtime_ns)
        return SkippedFile(path, "a broken link" if entry.is_symlink() else "not a regular file")
    except OSError as error:
        return SkippedFile(path, str(error.strerror))
