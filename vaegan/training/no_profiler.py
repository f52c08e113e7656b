"""Call Lightning's hooks without a profiler."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler

NO_CONTEXT = nullcontext()


class NoProfiler(PassThroughProfiler):
    """Measure nothing, with one shared context manager for all hooks.

    In each training step Lightning enters about 90 of them, one for each hook of each callback; its
    own profiler that measures nothing creates a generator for each.
    """

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        return NO_CONTEXT
