"""Count floating-point operations: a measure of compute that does not depend on the machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vaegan.training.compilation import without_compilation


class FlopCounter(TorchDispatchMode):
    """Sum the floating-point operations inside the context, with torch's formulas.

    torch's FlopCounterMode is not used: it attributes the operations to modules through hooks that
    fail in the autograd.grad call of a gradient penalty.
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

    Only convolutions and matrix products are counted, forward and backward; the rest is small.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @contextmanager
    def counted(self, part: str) -> Iterator[None]:
        """Count the operations inside the context as `counts[part]`.

        Only the first run of a part is counted, so all of its runs must cost the same.
        """
        if part in self.counts:
            yield
        else:
            with without_compilation(), FlopCounter() as counter:
                yield
            self.counts[part] = counter.total
