"""Parse lists of random seeds from the command line."""

from __future__ import annotations

import re
from typing import Any

from vaegan.config import require

EXPECTED = "a seed, a range such as 0-63, or a list of both such as [0,7,10-20]"
MAX_SEEDS = 10_000_000
SEED_RANGE = re.compile(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?")


def parse_seeds(value: Any, key: str) -> list[int]:
    """Return the seeds of a setting, in the given order.

    Args:
        value: A number, a string such as "0-63" (both ends included), or a list of these.
        key: Key of the setting, for error messages.

    Raises:
        ValueError: The value has another form.
    """
    seeds: list[int] = []
    for part in value if isinstance(value, list) else str(value).split(","):
        match = SEED_RANGE.fullmatch(str(part))
        require(match is not None, key, EXPECTED, value)
        assert match is not None
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        require(first <= last, key, "a range from a smaller to a larger seed", part)
        num_seeds = len(seeds) + last - first + 1
        require(num_seeds <= MAX_SEEDS, key, f"at most {MAX_SEEDS} seeds", num_seeds)
        seeds += range(first, last + 1)
    require(len(seeds) > 0, key, EXPECTED, value)
    return seeds
