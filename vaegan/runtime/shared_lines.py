"""Lines of text that all processes of a run share."""

from __future__ import annotations

import os
import secrets
import tempfile
import weakref
from pathlib import Path

from vaegan.runtime.collectives import broadcast, is_rank_zero


class SharedLines:
    """Append-only list of lines that all processes of a run on one machine share.

    All ranks create the object together. Copies in forked or spawned processes refer to the same
    list. The list is a temporary file that exists from the first line until rank 0 drops the
    object.
    """

    def __init__(self) -> None:
        name = broadcast(f"vaegan-{secrets.token_hex(16)}")
        self.path = Path(tempfile.gettempdir()) / name
        self.position = 0  # bytes that were read
        if is_rank_zero():
            weakref.finalize(self, remove_own_file, self.path, os.getpid())

    def append(self, line: str) -> None:
        """Add a line without line breaks."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, f"{line}\n".encode())  # one call, so that lines are never mixed
        finally:
            os.close(file)

    def read_new(self) -> list[str]:
        """Return the lines that were added since the last call in this process.

        Threads that call it at the same time may get the same lines.
        """
        start = self.position
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                content = file.read()
        except FileNotFoundError:
            return []
        content = content[: content.rfind(b"\n") + 1]  # another process may be writing a line
        self.position = start + len(content)  # not +=, as another thread may have added it too
        return content.decode().splitlines()


def remove_own_file(path: Path, owner_pid: int) -> None:
    """Remove a file unless this is a fork of the process that owns it."""
    if os.getpid() == owner_pid:
        path.unlink(missing_ok=True)
