"""Denormal floating-point numbers on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SMALLEST_DENORMAL = 2.0**-149  # of float32


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Treat denormal numbers, in float32 those below 1.2e-38 in magnitude, as zero in the context.

    Many CPUs are slow to compute with them. A GAN of binary images with exact gradients makes them
    all the time: where the generator's sigmoid is saturated, the gradient of its logit is about
    exp(-|logit|).

    The setting belongs to a thread. On Linux, new threads inherit it and keep it. The context
    therefore covers PyTorch's other threads only if nothing was computed before in this process,
    and these threads keep the setting after it.
    """
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)  # computed once: NumPy before 2.4 would warn of the setting
    were_zero = denormals_are_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(were_zero)


def denormals_are_zero() -> bool:
    """True if the current thread treats denormal numbers as zero."""
    denormal = torch.tensor(SMALLEST_DENORMAL, dtype=torch.float32, device="cpu")
    return not (denormal * 1).item()
