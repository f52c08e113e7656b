"""Stateless randomness: every random number is a pure function of what it is for.

Nothing random is stored in a checkpoint. The order of the data is f(seed, epoch); noise and latents are
f(seed, iteration, rank). That alone makes a resumed run equal to an uninterrupted one, and gives every rank
noise of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


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


class RankInvariantNoise(TorchFunctionMode):
    """Inside, the processes of a training draw the noise of their common batch, and each takes what is its images'.

    The noise of an image is then the same, whatever the number of processes; it is that of one process whose global
    generators were started from the same key. What is drawn in other ways, or has no dimension of the size of a batch,
    comes from the global generators.

    Args:
        key: As of `seed_global`.
        device: Where noise is drawn.
        rank: Which of the `world_size` processes this is: it has the images rank, rank + world_size, ... of the batch.
        num_images: How many these are.
    """

    def __init__(
        self,
        key: Sequence[int | str],
        device: torch.device,
        rank: int,
        world_size: int,
        num_images: int,
    ) -> None:
        super().__init__()
        self.generator = torch.Generator(device).manual_seed(derive_seed(*key))
        self.rank, self.world_size, self.num_images = rank, world_size, num_images

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.rand or func is torch.randn:
            shape = args[0] if isinstance(args[0], Sequence) else args
            like = torch.empty(0, dtype=kwargs.get("dtype"), device=kwargs.get("device"))
            drawn = self.draw(torch.Size(shape), like, is_normal=func is torch.randn)
        elif func is torch.rand_like or func is torch.randn_like:
            drawn = self.draw(args[0].shape, args[0], is_normal=func is torch.randn_like)
        elif func is Tensor.normal_ and len(args) == 1 and not kwargs:
            drawn = self.draw(args[0].shape, args[0], is_normal=True)
            drawn = None if drawn is None else args[0].copy_(drawn)
        elif (
            func is torch.normal
            and len(args) == 2
            and all(isinstance(value, Tensor) for value in args)
        ):
            drawn = self.draw(
                torch.broadcast_shapes(args[0].shape, args[1].shape), args[0], is_normal=True
            )
            drawn = None if drawn is None else drawn * args[1] + args[0]
        else:
            drawn = None
        return func(*args, **kwargs) if drawn is None else drawn

    def draw(self, shape: torch.Size, like: Tensor, is_normal: bool) -> Tensor | None:
        """This process's share, (shape), of the noise of all; None if no dimension is the batch's."""
        dim, num_parts = self.batch_dim(shape)
        if dim is None:
            return None
        whole = [*shape[:dim], shape[dim] * self.world_size, *shape[dim + 1 :]]
        is_last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if is_last else torch.contiguous_format
        noise = torch.empty(whole, dtype=like.dtype, device=like.device, memory_format=order)
        noise = (
            noise.normal_(generator=self.generator)
            if is_normal
            else noise.uniform_(generator=self.generator)
        )
        parts = noise.unflatten(dim, (num_parts, -1))
        share: Tensor = parts[
            (slice(None),) * (dim + 1) + (slice(self.rank, None, self.world_size),)
        ]
        return share.flatten(dim, dim + 1)

    def batch_dim(self, shape: torch.Size) -> tuple[int | None, int]:
        """Which dimension is the batch's, and how many batches lie behind each other in it: real and fake images."""
        num = self.num_images
        if len(shape) in (3, 5) and shape[1] == num:
            return 1, 1  # several samples of each image or latent
        if shape and shape[0] % num == 0:
            return 0, shape[0] // num
        if shape and shape[0] > 1 and num % shape[0] == 0:
            return 0, 1  # a part of the batch, in gradient accumulation
        return None, 1


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
