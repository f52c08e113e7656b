"""Stateless randomness: every random number is a pure function of a key.

No random state is stored in a checkpoint. The data order is f(seed, epoch). In training, noise and
latents are f(seed, iteration, position in the global batch); in validation and test, noise is
f(seed, image index), see `evaluation_noise.py`, and the latents of scored images are f(seed, draw,
image index). A resumed run therefore equals an uninterrupted run, and each rank has its own noise.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def derive_seed(*key: int | str) -> int:
    """Hash a key such as `(seed, "train", iteration, rank)` to a 63-bit seed."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def make_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator seeded by the key."""
    return torch.Generator().manual_seed(derive_seed(*key))


def seed_global(device: torch.device, *key: int | str) -> None:
    """Seed torch's global generators of the CPU and of `device` by the key.

    `torch.manual_seed` would also queue a call for every unused type of device, which takes more
    than a millisecond and some memory each time.
    """
    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """Seed the global generators of the CPU and the current GPU, and restore their state on exit.

    A GPU that this process has not used yet is left alone: reading its state would initialize it.
    """
    device = torch.device("cpu")
    if torch.cuda.is_initialized():
        device = torch.device("cuda", torch.cuda.current_device())
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        seed_global(device, *key)
        yield


step_noise: BatchNoise | None = None  # set in each training step on several devices


@contextmanager
def drawing_noise() -> Iterator[None]:
    """Make the noise drawn in the context independent of the number of devices.

    Noise with a batch dimension must be drawn in this context in training steps. The context
    is narrow because each call of a torch function inside it is intercepted in Python.
    """
    if step_noise is None:
        yield
    else:
        with step_noise:
            yield


@drawing_noise()
def uniform_noise(like: Tensor) -> Tensor:
    """Return uniform noise in [0, 1) with the shape, dtype and device of a tensor.

    Unlike `torch.rand_like`, which fills in the order of the strides, the result does not depend on
    the memory layout of the tensor.
    """
    return torch.rand(like.shape, dtype=like.dtype, device=like.device)


NOISE_FUNCTIONS = {  # intercepted function -> method that fills a tensor with the same noise
    torch.rand: Tensor.uniform_,
    torch.rand_like: Tensor.uniform_,
    torch.randn: Tensor.normal_,
    torch.randn_like: Tensor.normal_,
    torch.normal: Tensor.normal_,  # called by `Normal.sample` with (mean, std)
    Tensor.normal_: Tensor.normal_,  # called by `Normal.rsample`
}


class BatchNoise(TorchFunctionMode, abc.ABC):
    """Intercept the functions that draw noise with a batch dimension.

    Noise without a batch dimension, and random numbers of other functions, still come from torch's
    global generators.

    Args:
        num_images: Number of images of the batch on this rank.
    """

    def __init__(self, num_images: int) -> None:
        super().__init__()
        self.num_images = num_images

    @abc.abstractmethod
    def draw(
        self, shape: torch.Size, like: Tensor, fill: Any, dim: int, num_batches: int
    ) -> Tensor:
        """Draw noise of this rank.

        Args:
            shape: Shape of the noise.
            like: Tensor with the dtype and device of the noise.
            fill: `Tensor.uniform_` for uniform noise in [0, 1), `Tensor.normal_` for normal noise.
            dim: Batch dimension of the shape.
            num_batches: Number of batches that are concatenated along it.
        """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        fill = NOISE_FUNCTIONS.get(func)
        is_other_call = fill is None or not args or "generator" in kwargs
        if func is Tensor.normal_:
            is_other_call |= len(args) > 1 or bool(kwargs)  # not the standard normal
        if func is torch.normal:
            is_other_call |= len(args) != 2 or not all(isinstance(arg, Tensor) for arg in args)
        if is_other_call:
            return func(*args, **kwargs)
        if func in (torch.rand, torch.randn):
            shape = args[0] if isinstance(args[0], Sequence) else args
            like = torch.empty(0, dtype=kwargs.get("dtype"), device=kwargs.get("device"))
        else:
            shape = torch.broadcast_shapes(*(arg.shape for arg in args))
            like = args[0]
        dim, num_batches = self.find_batch_dim(shape)
        if dim is None:
            return func(*args, **kwargs)
        noise = self.draw(torch.Size(shape), like, fill, dim, num_batches)
        if func is Tensor.normal_:
            return args[0].copy_(noise)
        if func is torch.normal:
            return noise * args[1] + args[0]
        return noise

    def find_batch_dim(self, shape: Sequence[int]) -> tuple[int | None, int]:
        """Return the batch dimension, if any, and the number of batches concatenated along it."""
        if len(shape) in (3, 5) and shape[1] == self.num_images:
            return 1, 1  # several samples per image or latent
        if shape and shape[0] % self.num_images == 0:
            return 0, shape[0] // self.num_images  # 2 for real and fake images
        if shape and shape[0] > 1 and self.num_images % shape[0] == 0:
            return 0, 1  # part of the batch, in gradient accumulation
        return None, 1


class RankInvariantNoise(BatchNoise):
    """Make each rank draw the noise of the global batch and use the part for its own images.

    The noise of an image then does not depend on the number of devices: it equals the noise of a
    single process whose global generators were seeded by the same key.

    Args:
        key: Key, as in `seed_global`.
        device: Device of the noise.
        rank: Rank of this process. It has the images rank, rank + world_size, ... of the batch.
        world_size: Number of processes.
        num_images: Number of images on this rank.
    """

    def __init__(
        self,
        key: Sequence[int | str],
        device: torch.device,
        rank: int,
        world_size: int,
        num_images: int,
    ) -> None:
        super().__init__(num_images)
        self.generator = torch.Generator(device).manual_seed(derive_seed(*key))
        self.rank = rank
        self.world_size = world_size

    def draw(
        self, shape: torch.Size, like: Tensor, fill: Any, dim: int, num_batches: int
    ) -> Tensor:
        """Draw the noise of all ranks, and return the share of this rank, of the given shape."""
        global_shape = list(shape)
        global_shape[dim] *= self.world_size
        noise = torch.empty(global_shape, dtype=like.dtype, device=like.device)
        if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last):
            noise = noise.contiguous(memory_format=torch.channels_last)
        fill(noise, generator=self.generator)
        batches = noise.unflatten(dim, (num_batches, -1)).movedim(dim + 1, 0)
        share = batches[self.rank :: self.world_size].movedim(0, dim + 1)
        return share.flatten(dim, dim + 1)


def image_noise(images: Tensor, seed: int) -> Tensor:
    """Compute uniform noise in [0, 1) as a function of the seed and of each image's 8-bit content.

    An image gets the same noise in every batch, order and process, and on every device. Identical
    images get identical noise.

    Args:
        images: In [0, 1], (B, C, H, W).
        seed: Random seed; each seed gives different noise.

    Returns:
        Noise, (B, C, H, W).

    Source: counter-based generation with the mixing function of Steele et al. 2014, SplitMix64.
    """
    pixels = (images.reshape(len(images), -1) * 255).round().long()
    positions = torch.arange(pixels.shape[1], device=images.device)
    position_hashes = mix_bits(positions + derive_seed(seed, "noise"))
    image_hashes = mix_bits((pixels * (2 * position_hashes + 1)).sum(1, keepdim=True))
    bits = (mix_bits(image_hashes + position_hashes) >> 40) & 0xFFFFFF
    return (bits.to(images.dtype) / 2**24).view(images.shape)


def mix_bits(x: Tensor) -> Tensor:
    """Mix 64-bit integers bijectively, so that each output bit depends on each input bit."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & (2**33 - 1))
