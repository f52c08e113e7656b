"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class CountFlops(TorchDispatchMode):
    """Adds up the floating-point operations of all that runs inside, by torch's formulas.

    torch's own FlopCounterMode also tells modules apart, by hooks that a gradient penalty's autograd.grad refuses.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


class FlopCounts:
    """Floating-point operations of the parts of a step, counted the first time that each is done.

    They are a measure of cost that no other load on the machine disturbs. Convolutions and matrix products count, with
    their backward passes; the rest is small.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @contextmanager
    def counted(self, part: str) -> Iterator[None]:
        """Counts what is done inside, which must be the same for the same part, under `counts[part]`."""
        if part in self.counts:
            yield
        else:
            with CountFlops() as counter:
                yield
            self.counts[part] = counter.total
