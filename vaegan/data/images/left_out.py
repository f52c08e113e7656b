"""Files of an image folder that are left out on purpose, and the reasons.

Operating systems, file managers and network storage leave copies, thumbnails and deleted images in
hidden folders. Such files are not part of the data set. Files in unsupported image formats are
listed too. All other files, such as notes and labels, are not mentioned.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from vaegan.data.images.decoding import SUFFIXES

APPLE_DOUBLE = "macOS metadata"
THUMBNAILS = "thumbnails"
TRASH = "trash and system folders"
HIDDEN = "hidden files and folders"
RUN_FOLDERS = "run folders of vaegan"
UNREAD_FORMAT = "unsupported formats"
OUTSIDE_SPLITS = "outside the split folders"
HELD_OUT_IN_TRAINING = "val or test folders among the training images"
EXPECTED_REASONS = (APPLE_DOUBLE, THUMBNAILS, TRASH, HIDDEN, RUN_FOLDERS)  # never meant to be used

FOLDER_REASONS = {  # lower case
    "__macosx": APPLE_DOUBLE,
    ".appledouble": APPLE_DOUBLE,
    ".thumbnails": THUMBNAILS,
    ".thumbs": THUMBNAILS,
    "@eadir": THUMBNAILS,
    "$recycle.bin": TRASH,
    "#recycle": TRASH,
    "@recycle": TRASH,
    "#snapshot": TRASH,
    "lost+found": TRASH,
    "system volume information": TRASH,
}
TRASH_PREFIX = ".trash"  # .Trash, .Trash-1000, .Trashes
OTHER_SUFFIXES = (
    ".avif .heic .heif .jxl .jp2 .j2k .jpf .jpx .jpm .psd .psb .xcf .kra .svg .svgz .ico .icns "
    ".tga .dds .exr .hdr .pfm .pam .dib .pcx .sgi .xbm .xpm .qoi .eps .cr2 .cr3 .nef .arw .dng "
    ".orf .rw2 .raf .pef .srw .dcm .dicom .nii .fits .fts .czi .lif .nd2 .svs .ndpi .lsm"
)
UNREAD_SUFFIXES = frozenset(OTHER_SUFFIXES.split()) - SUFFIXES


class LeftOutFile(NamedTuple):
    """A file that is left out on purpose."""

    path: str  # relative to the folder, separated by "/"
    reason: str  # one of the reasons above


def folder_reason(name: str) -> str | None:
    """Return why all files in a folder of this name are left out; None for an ordinary folder."""
    name = name.lower()
    if name.startswith(TRASH_PREFIX):
        return TRASH
    return FOLDER_REASONS.get(name) or (HIDDEN if name.startswith(".") else None)


def file_reason(name: str) -> str | None:
    """Return why a file is left out; None for an image file, and for files not to be mentioned."""
    if not is_like_image(name):
        return None
    if name.startswith("._"):
        return APPLE_DOUBLE
    if name.startswith("."):
        return HIDDEN
    return None if suffix(name) in SUFFIXES else UNREAD_FORMAT


def is_like_image(name: str) -> bool:
    """True if the name has the suffix of an image format, supported or not."""
    return suffix(name) in SUFFIXES or suffix(name) in UNREAD_SUFFIXES


def suffix(name: str) -> str:
    """Return the suffix of a path in lower case, with its dot; empty if there is none."""
    return os.path.splitext(name)[1].lower()


def summarize(files: Iterable[LeftOutFile]) -> str:
    """Describe left-out files in one line by reason and suffix; empty if there are none.

    For example "unsupported formats: 120 (.heic 80, .svg 40); thumbnails: 3 (.jpg 3)".
    """
    suffixes: dict[str, Counter[str]] = {}
    for path, reason in files:
        suffixes.setdefault(reason, Counter())[suffix(path)] += 1
    parts = []
    for reason, counts in suffixes.items():
        listed = ", ".join(f"{name} {number}" for name, number in counts.most_common())
        parts.append(f"{reason}: {counts.total()} ({listed})")
    return "; ".join(parts)
