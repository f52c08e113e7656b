"""Parallel reading of image files, with a progress bar."""

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

from vaegan.data.images.decoding import BrokenImage, DecodedImage, ImageTraits, Pixels
from vaegan.data.images.scanning import ImageFile
from vaegan.runtime.progress_lines import ProgressLines

UNREAD_DIGEST = b"not read"  # in place of a hash, for a file whose size shows that it is broken
QUEUED_FILES_PER_THREAD = 16  # files read ahead
Decode = Callable[[bytes, bytes], DecodedImage]  # called with a file's hash and content


class Content(NamedTuple):
    """Result of reading one file."""

    file: ImageFile
    digest: bytes = b""  # hash of the content; empty if reading may succeed later
    pixels: Pixels | None = None  # (height, width, channels); None if broken or already cached
    reason: str = ""  # description of the error; empty for a good file
    traits: ImageTraits = ImageTraits()


def read_file(root: Path, file: ImageFile, decode: Decode, max_bytes: int) -> Content:
    """Read and decode a file. On failure, the result contains the reason."""
    if file.num_bytes == 0:  # not opened: a file in /proc also has size 0, and may be endless
        return Content(file, UNREAD_DIGEST, reason="the file is empty")
    if file.num_bytes > max_bytes:
        return Content(file, UNREAD_DIGEST, reason=too_large_reason(file.num_bytes))
    try:
        content = read_bounded(root / file.path, max_bytes)
    except OSError as error:
        return Content(file, reason=f"cannot be read ({error.strerror})")
    except BrokenImage as error:
        return Content(file, reason=str(error))
    digest = hashlib.blake2b(content, digest_size=16).digest()
    try:
        pixels, traits = decode(digest, content)
        return Content(file, digest, pixels, traits=traits)
    except BrokenImage as error:
        return Content(file, digest, reason=str(error))
    except MemoryError:
        return Content(file, reason="there is not enough memory to decode it")


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes` bytes.

    Raises:
        OSError: The file cannot be read.
        BrokenImage: It is not a regular file, or it is larger.
    """

    def open_without_blocking(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=open_without_blocking) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BrokenImage("not a regular file")
        if status.st_size > max_bytes:
            raise BrokenImage(too_large_reason(status.st_size))
        return file.read(status.st_size)


def too_large_reason(num_bytes: int) -> str:
    """Return the reason for skipping a file of this size."""
    return f"the file has {num_bytes} bytes, too many for an image of dataset.max_pixels"


def count_usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def read_all(
    root: Path, files: Iterable[ImageFile], decode: Decode, max_bytes: int, num_threads: int
) -> Iterator[Content]:
    """Yield the decoded files in the given order, reading a few files ahead in parallel."""
    if num_threads == 1:
        yield from (read_file(root, file, decode, max_bytes) for file in files)
        return
    executor = ThreadPoolExecutor(num_threads)  # Pillow releases the GIL while it decodes
    queue: deque[Future[Content]] = deque()
    try:
        for file in files:
            queue.append(executor.submit(read_file, root, file, decode, max_bytes))
            if len(queue) >= QUEUED_FILES_PER_THREAD * num_threads:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def with_progress(
    contents: Iterable[Content], total: int, title: str = "decoding"
) -> Generator[Content]:
    """Yield the contents, and show a progress bar with rate, time left and skipped files.

    Lines in the log replace the bar unless the output is a terminal.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_interactive:
        yield from with_progress_lines(contents, total, title)
        return
    columns = (
        title,
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]:,.0f}/s, {task.fields[skipped]} skipped"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, rate=0.0, skipped=0)
        num_skipped = 0
        last_update = time.monotonic()
        for num_done, content in enumerate(contents, 1):
            yield content
            num_skipped += bool(content.reason)
            if num_done == total or time.monotonic() - last_update > 0.1:
                last_update = time.monotonic()
                rate = progress.tasks[0].speed or 0.0
                progress.update(task, completed=num_done, rate=rate, skipped=num_skipped)


def with_progress_lines(contents: Iterable[Content], total: int, title: str) -> Generator[Content]:
    """Yield the contents, and log the progress."""
    lines = ProgressLines(title, total, "files")
    num_skipped = 0
    for num_done, content in enumerate(contents, 1):
        yield content
        num_skipped += bool(content.reason)
        lines.update(num_done, f", {num_skipped} skipped")
