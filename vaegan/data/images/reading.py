"""Reads the files of a folder in parallel, with a progress bar, and keeps count of those that are no good."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from vaegan.data.images.decoding import BrokenImage, Pixels
from vaegan.data.images.scanning import ImageFile, SkippedFile

NOT_READ = b"not read"  # in the place of a hash, where the size tells enough
AHEAD = 16  # files a thread that are read before their turn
Decode = Callable[[bytes, bytes], Pixels | None]  # from the hash of a file's bytes, and the bytes


class Content(NamedTuple):
    """What a file holds."""

    file: ImageFile
    digest: bytes = b""  # hash of its bytes; empty where they cannot be read now
    pixels: Pixels | None = (
        None  # (height, width, channels); None where they are known, or there are none
    )
    reason: str = ""  # why there are none


class BrokenFileLimit:
    """Files that are skipped, until there are too many.

    Args:
        num_files: Of the folder, good or bad.
        max_broken: Share of them that may be skipped.
        fails: Whether the first one is one too many.
    """

    def __init__(self, num_files: int, max_broken: float, fails: bool) -> None:
        self.num_files, self.max_broken, self.fails = num_files, max_broken, fails
        self.skipped: list[SkippedFile] = []
        self.counted: dict[str, SkippedFile] = {}  # by path

    def skip(self, skipped: SkippedFile) -> None:
        """Count one, once: threads may meet the same one.

        Raises:
            ValueError: It is one too many.
        """
        if self.counted.setdefault(skipped.path, skipped) is not skipped:
            return
        self.skipped.append(skipped)
        count, last = len(self.skipped), f"{skipped.path!r}: {skipped.reason}"
        if self.fails:
            raise ValueError(f"{last} (dataset.on_error=skip leaves such files out)")
        if count > self.max_broken * self.num_files:
            raise ValueError(
                f"{count} of {self.num_files} files cannot be used, more than dataset.max_broken={self.max_broken} "
                f"allows; the last one: {last}"
            )


def read_file(root: Path, file: ImageFile, decode: Decode, max_bytes: int) -> Content:
    """Content of a file; where it cannot be read or decoded, with the reason."""
    if (
        file.num_bytes == 0
    ):  # what says so may be no file on a disk, but one of /proc, and never end
        return Content(file, NOT_READ, reason="the file is empty")
    if file.num_bytes > max_bytes:
        return Content(
            file, NOT_READ, reason=f"its {file.num_bytes} bytes are more than a picture needs"
        )
    try:
        content = read_bounded(root / file.path, max_bytes)
    except OSError as error:
        return Content(file, reason=f"cannot be read ({error.strerror})")
    except BrokenImage as error:
        return Content(file, reason=str(error))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        return Content(file, digest, decode(digest, content))
    except BrokenImage as error:
        return Content(file, digest, reason=str(error))
    except MemoryError:
        return Content(file, reason="there is not enough memory to decode it")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Content of an ordinary file.

    Raises:
        OSError: It cannot be read.
        BrokenImage: It is none, or larger.
    """
    with open(
        path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    ) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage("no ordinary file")
        if status.st_size > max_bytes:
            raise BrokenImage(f"its {status.st_size} bytes are more than a picture needs")
        return file.read(status.st_size)


def num_cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def read_all(
    root: Path, files: Iterable[ImageFile], decode: Decode, max_bytes: int, num_threads: int
) -> Iterator[Content]:
    """Content of every file, in order; few are held at a time."""
    if num_threads == 1:
        yield from (read_file(root, file, decode, max_bytes) for file in files)
        return
    executor = ThreadPoolExecutor(num_threads)  # Pillow decodes without the interpreter's lock
    waiting: deque[Future[Content]] = deque()
    try:
        for file in files:
            waiting.append(executor.submit(read_file, root, file, decode, max_bytes))
            if len(waiting) >= AHEAD * num_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def with_progress(
    contents: Iterable[Content], total: int, title: str = "decoding"
) -> Generator[Content]:
    """The same, with a bar on the terminal: files a second, time left, files skipped."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.fields[rate]:,.0f} a second, {task.fields[skipped]} skipped"),
        TimeRemainingColumn(),
    )
    with Progress(
        title, BarColumn(), MofNCompleteColumn(), *columns, console=Console(stderr=True)
    ) as progress:
        task = progress.add_task("", total=total, rate=0.0, skipped=0)
        done = skipped = 0
        display_path = time.monotonic()
        for content in contents:
            yield content
            done, skipped = done + 1, skipped + bool(content.reason)
            if done == total or time.monotonic() - display_path > 0.1:
                display_path = time.monotonic()
                progress.update(
                    task, completed=done, rate=progress.tasks[0].speed or 0.0, skipped=skipped
                )
