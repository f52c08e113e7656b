"""Broken files of a data set: a list that all processes share, and a limit on their number."""

from __future__ import annotations

import json

from vaegan.data.images.scanning import SkippedFile
from vaegan.runtime.shared_lines import SharedLines


class BrokenFileLimit:
    """Collects skipped files, and raises an error if there are too many.

    Files that data loader processes and other ranks skip are included.

    Args:
        num_files: Number of files in the folder, good or broken.
        max_broken: Maximum fraction of the files that may be skipped.
        fail_fast: True to raise an error at the first broken file.
    """

    def __init__(self, num_files: int, max_broken: float, fail_fast: bool) -> None:
        self.num_files = num_files
        self.max_broken = max_broken
        self.fail_fast = fail_fast
        self.skipped_by_path: dict[str, SkippedFile] = {}  # known to this process
        self.shared_lines = SharedLines()

    @property
    def skipped(self) -> list[SkippedFile]:
        """Files that any process has skipped so far."""
        for line in self.shared_lines.read_new():
            skipped = SkippedFile(*json.loads(line))
            self.skipped_by_path.setdefault(skipped.path, skipped)
        return list(self.skipped_by_path.values())

    def skip(self, skipped: SkippedFile) -> None:
        """Add a file, at most once. Several threads may report the same file.

        Raises:
            ValueError: Too many files were skipped, or `fail_fast` is set.
        """
        if self.skipped_by_path.setdefault(skipped.path, skipped) is not skipped:
            return
        self.shared_lines.append(json.dumps(skipped))
        num_skipped = len(self.skipped)
        last = f"{skipped.path!r}: {skipped.reason}"
        if self.fail_fast:
            raise ValueError(f"{last} (set dataset.on_error=skip to skip broken files)")
        if num_skipped > self.max_broken * self.num_files:
            raise ValueError(
                f"{num_skipped} of {self.num_files} files cannot be used, more than "
                f"dataset.max_broken={self.max_broken} allows; repair or remove them, or raise "
                f"dataset.max_broken. The last one is {last}"
            )
