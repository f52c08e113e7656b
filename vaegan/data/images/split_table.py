"""Table of the splits and classes of an image folder, which is logged when a run starts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vaegan.data.images.split_folders import FolderLabels, printable

MAX_CLASS_ROWS = 6  # with more classes, a split is one row
Row = tuple[str, str, str, str]


def format_split_table(
    paths: Mapping[str, Sequence[str]],
    labels: Mapping[str, FolderLabels],
    fractions: Mapping[str, float],
) -> str:
    """Return a table of split, class, number of images, and the folder they come from.

    Args:
        paths: Paths of the images of each split.
        labels: Labels of all images, by path.
        fractions: Fraction of the training images that was taken for a split, by split.
    """
    rows: list[Row] = [("split", "class", "images", "from")]
    for split, split_paths in paths.items():
        paths_by_class: dict[str, list[str]] = {}
        for path in split_paths:
            paths_by_class.setdefault(labels[path].class_name, []).append(path)
        if len(paths_by_class) > MAX_CLASS_ROWS:
            sizes = sorted(map(len, paths_by_class.values()))
            title = f"{len(sizes)} classes of {sizes[0]} to {sizes[-1]} images"
            paths_by_class = {title: list(split_paths)}
        for name, class_paths in sorted(paths_by_class.items()):
            source = describe_source(class_paths, fractions.get(split))
            name = printable(name) if name else "-"
            rows.append((split, name, str(len(class_paths)), printable(source)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"  {split:<{widths[0]}}  {name:<{widths[1]}}  {number:>{widths[2]}}  {source}"
        for split, name, number, source in rows
    )


def describe_source(paths: Sequence[str], fraction: float | None) -> str:
    """Return the innermost folder that contains all images, and how they were chosen in it."""
    folder = os.path.commonpath([os.path.dirname(path) or "." for path in paths]) or "."
    return folder if fraction is None else f"{folder} ({fraction:.1%} by content hash)"
