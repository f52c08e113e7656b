"""Layers that networks are made of, and the image sizes that they go through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaegan.images import ImageShape
from vaegan.networks.sizes import ACTIVATIONS, ConvSizes, ResnetSizes


def hidden_layers(dims: Sequence[int], activation: str) -> list[nn.Module]:
    """Return linear layers between the given dimensions, each followed by the activation."""
    layers: list[nn.Module] = []
    num_gates = 2 if activation == "glu" else 1  # as many units again for the gates
    for fan_in, fan_out in pairwise(dims):
        layers += [nn.Linear(fan_in, num_gates * fan_out), ACTIVATIONS[activation]()]
    return layers


def conv_widths(image_shape: ImageShape, sizes: ConvSizes) -> list[int]:
    """Return the channels after each halving of an image: width, 2 width, ..., max_width at most.

    An image is halved twice, then further while height and width are at least 8. Odd sizes are
    rounded down.

    Raises:
        ValueError: Height or width cannot be halved twice.
    """
    _, height, width = image_shape
    smaller = min(height, width)
    if smaller < 4:
        group = sizes.base.group
        raise ValueError(
            f"{group}={sizes.name} halves images at least twice: height and width must be at "
            f"least 4, got {height} x {width}; resize the images, or choose {group}=mlp"
        )
    num_halvings = max(2, smaller.bit_length() - 3)
    return [min(sizes.width << i, sizes.max_width) for i in range(num_halvings)]


def size_after(image_shape: ImageShape, num_halvings: int) -> tuple[int, int]:
    """Return height and width after so many halvings, rounded down."""
    _, height, width = image_shape
    return height >> num_halvings, width >> num_halvings


def down(fan_in: int, fan_out: int) -> nn.Conv2d:
    """Return a convolution that halves height and width."""
    return nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)


def up(fan_in: int, fan_out: int, odd: tuple[int, int] = (0, 0)) -> nn.ConvTranspose2d:
    """Return a transposed convolution that doubles height and width, and adds a pixel where odd."""
    return nn.ConvTranspose2d(
        fan_in, fan_out, kernel_size=4, stride=2, padding=1, output_padding=odd
    )


def is_odd(image_shape: ImageShape, num_halvings: int) -> tuple[int, int]:
    """Return 1 where height or width is odd after so many halvings, else 0."""
    height, width = size_after(image_shape, num_halvings)
    return height & 1, width & 1


class ResidualBlock(nn.Module):
    """x + conv(f(conv(f(x)))) with activation f, each after a GroupNorm if `normalization=group`.

    Source: He et al. 2016, arXiv:1603.05027; starting as the identity without a norm:
    arXiv:1901.09321.
    """

    def __init__(self, width: int, normalization: str, activation: str = "silu") -> None:
        super().__init__()
        self.normalization = normalization
        self.last = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.first_norm = self._build_norm(width)
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.last_norm = self._build_norm(width)
        self.activation = ACTIVATIONS[activation]()

    def _build_norm(self, width: int) -> nn.Module:
        if self.normalization == "group":
            return nn.GroupNorm(math.gcd(width, 8), width)
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(self.activation(self.first_norm(x)))
        return x + self.last(self.activation(self.last_norm(hidden)))


def residual_blocks(width: int, sizes: ResnetSizes, activation: str = "silu") -> list[nn.Module]:
    """Return the blocks at one size of the image."""
    return [ResidualBlock(width, sizes.normalization, activation) for _ in range(sizes.num_blocks)]
