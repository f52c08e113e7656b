"""Noise of an evaluation, as a function of the seed and of each image's index in the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaegan.runtime.seeding import BatchNoise, derive_seed, mix_bits

NUM_LEVELS = 2**24  # number of distinct uniform random numbers, all exact in float32


class PerImageNoise(BatchNoise):
    """Draw the noise of each image as a function of (key, image index, number of the draw).

    The noise then depends neither on the number of devices nor on the batch size.

    Args:
        key: Key, as in `derive_seed`.
        indices: Index in the data set of each image of the batch on this rank, int64, (B,).

    Source: counter-based generation with the mixing function of Steele et al. 2014, SplitMix64;
    normal noise by Box & Muller 1958.
    """

    def __init__(self, key: Sequence[int | str], indices: Tensor) -> None:
        super().__init__(len(indices))
        self.key = key
        self.indices = indices
        self.num_draws = 0

    def find_batch_dim(self, shape: Sequence[int]) -> tuple[int | None, int]:
        dim, num_batches = super().find_batch_dim(shape)
        is_part = dim is not None and shape[dim] < self.num_images
        return (None, 1) if is_part else (dim, num_batches)

    def draw(
        self, shape: torch.Size, like: Tensor, fill: Any, dim: int, num_batches: int
    ) -> Tensor:
        self.num_draws += 1
        seed = derive_seed(*self.key, self.num_draws)
        indices = self.indices.to(like.device)
        batch_seeds = [derive_seed(seed, "batch", batch) for batch in range(num_batches)]
        image_hashes = torch.cat([mix_bits(indices + batch_seed) for batch_seed in batch_seeds])
        other_dims = [*shape[:dim], *shape[dim + 1 :]]
        positions = torch.arange(math.prod(other_dims), device=like.device)
        bits = mix_bits(image_hashes.unsqueeze(1) + mix_bits(positions + seed))
        noise = self.to_uniform(bits) if fill is Tensor.uniform_ else self.to_normal(bits)
        return noise.to(like.dtype).view(-1, *other_dims).movedim(0, dim)

    def to_uniform(self, bits: Tensor) -> Tensor:
        """Map 64-bit integers to uniform numbers in [0, 1), float32."""
        return ((bits >> 40) & (NUM_LEVELS - 1)).float() / NUM_LEVELS

    def to_normal(self, bits: Tensor) -> Tensor:
        """Map 64-bit integers to standard normal numbers, float32."""
        radius = (-2 * torch.log(1 - self.to_uniform(bits))).sqrt()
        angle = 2 * math.pi * self.to_uniform(bits << 24)
        return radius * torch.cos(angle)
