"""Progress of a long task as log lines, for log files and terminals without a progress bar."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

log = logging.getLogger(__name__)
FIRST_SECONDS = 2.0  # time of the first line after the start
MAX_SECONDS = 60.0  # longest time between two lines


class ProgressLines:
    """Logs the progress of a task: soon after its start, then at growing intervals.

    Args:
        title: Name of the task.
        total: Amount of work.
        unit: Unit of the work, in the plural.
    """

    def __init__(self, title: str, total: int, unit: str) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.start = time.monotonic()
        self.next_line = self.start + FIRST_SECONDS

    def update(self, num_done: int, note: str = "") -> None:
        """Log a line if one is due, with `note` appended."""
        now = time.monotonic()
        if now < self.next_line or not num_done:
            return
        elapsed = now - self.start
        self.next_line = now + min(MAX_SECONDS, elapsed)
        left = format_seconds(elapsed * (self.total - num_done) / num_done)
        log.info(
            "%s: %s of %s %s (%.0f%%), %s, about %s left%s",
            self.title,
            f"{num_done:,}",
            f"{self.total:,}",
            self.unit,
            100 * num_done / self.total,
            format_seconds(elapsed),
            left,
            note,
        )


def format_seconds(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))
