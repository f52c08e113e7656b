"""Count floating-point operations, a measure of cost that does not depend on the machine's load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Add up the floating-point operations inside the context, by torch's formulas.

    torch's FlopCounterMode also attributes them to modules, by hooks that fail in the autograd.grad
    of a gradient penalty.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        count_flops = flop_registry.get(func._overloadpacket)
        if count_flops is not None:
            self.total += count_flops(*args, **kwargs, out_val=out)
        return out


class FlopCounts:
    """Floating-point operations of the parts of a step, counted the first time each part runs.

    Convolutions and matrix products count, with their backward passes; the rest is small.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @contextmanager
    def counted(self, part: str) -> Iterator[None]:
        """Count what runs inside as `counts[part]`; it must cost the same every time."""
        if part in self.counts:
            yield
        else:
            with FlopCounter() as counter:
                yield
            self.counts[part] = counter.total
