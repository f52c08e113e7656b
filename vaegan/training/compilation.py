"""Compile the networks of training steps with torch.compile."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

BACKEND = "inductor"


class CompiledNetworks:
    """Networks that are compiled in place, and that run compiled only inside `compiled()`.

    Validation, tests and exports therefore use the uncompiled networks. Shapes are static, so each
    batch size gets its own graph.

    Args:
        networks: Networks to compile when they first run.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks = networks
        self.calls = []
        for network in networks:
            network.compile(backend=BACKEND, dynamic=False)
            self.calls.append(network._compiled_call_impl)
            network._compiled_call_impl = None

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Run the networks compiled in the context."""
        for network, call in zip(self.networks, self.calls, strict=True):
            network._compiled_call_impl = call
        try:
            yield
        finally:
            for network in self.networks:
                network._compiled_call_impl = None


@contextmanager
def without_compilation() -> Iterator[None]:
    """Run compiled networks uncompiled in the context.

    A compiled network cannot be differentiated twice, which gradient penalties do, and hides its
    operations from modes that count them.
    """
    if "torch._dynamo" not in sys.modules:  # nothing was compiled; importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
