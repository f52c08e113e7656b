"""Stateless randomness: every random number is a pure function of what it is for.

Nothing random is stored in a checkpoint. The order of the data is f(seed, epoch); noise and latents are
f(seed, iteration, rank). That alone makes a resumed run equal to an uninterrupted one, and gives every rank
noise of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(*key: int | str) -> int:
    """63-bit seed of a key such as `(seed, "train", iteration, rank)`: equal keys give equal seeds."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*key: int | str) -> torch.Generator:
    """CPU generator seeded by the key."""
    return torch.Generator().manual_seed(derive_seed(*key))


def seed_global(device: torch.device, *key: int | str) -> None:
    """Start torch's global generators of the CPU and of `device` from the key.

    `torch.manual_seed` would also queue a call for every kind of device that is not in use: over a millisecond, and
    some memory, at each call.
    """
    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Inside, torch's global generators start from the key; afterwards they are as they were."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(*key))
        yield
