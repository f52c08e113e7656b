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
from torch import Tensor


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


def image_noise(images: Tensor, seed: int) -> Tensor:
    """Uniform noise in [0, 1) that is a function of the seed and of each image's 8-bit content alone.

    The same image gets the same noise in every batch, order and process, and on every device; equal images get equal
    noise.

    Args:
        images: In [0, 1], (B, C, H, W).
        seed: Another one gives another noise.

    Source: counter-based generation with the mixing function of Steele et al. 2014, SplitMix64.
    """
    flat = (images.reshape(len(images), -1) * 255).round().long()
    place = _mix(torch.arange(flat.shape[1], device=images.device) + derive_seed(seed, "noise"))
    content = _mix((flat * (2 * place + 1)).sum(1, keepdim=True))
    bits = (_mix(content + place) >> 40) & 0xFFFFFF
    return (bits.to(images.dtype) / 2**24).view(images.shape)


def _mix(x: Tensor) -> Tensor:
    """Bijection of 64-bit integers in which every bit depends on every other one."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & (2**33 - 1))
