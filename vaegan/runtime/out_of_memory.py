"""Explain a lack of memory on the CPU or a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Messages of torch, and of cuBLAS and cuDNN, which allocate their own memory.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|CU[A-Z]+_(STATUS_)?(\w+_)?ALLOC(ATION)?_FAILED"
)


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn out-of-memory errors into a ValueError that suggests other settings.

    Args:
        advice: Settings to try.

    Raises:
        ValueError: The CPU or a GPU ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not OUT_OF_MEMORY.search(str(error)):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"out of memory: {reason}\nTry {advice}") from error
