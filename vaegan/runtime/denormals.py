"""Denormal floating-point numbers on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALLEST_DENORMAL = 2.0**-149  # of float32


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Treat denormal numbers, in float32 those below 1.2e-38 in magnitude, as zero in the context.

    Many CPUs are slow to compute with them. A GAN of binary images makes them all the time: where
    the generator's sigmoid is saturated, the gradient of its logit is about exp(-|logit|).

    A thread inherits the setting from the thread that starts it, so the context covers PyTorch's
    own threads only if nothing was computed in the process before.
    """
    were_zero = denormals_are_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(were_zero)


def denormals_are_zero() -> bool:
    """True if the current thread treats denormal numbers as zero."""
    return not (torch.tensor(SMALLEST_DENORMAL) * 1).item()
