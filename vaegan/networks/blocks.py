"""Layers, initialization and shape rules that the network files share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from vaegan.images import ImageShape
from vaegan.networks.sizes import (
    ConvSizes,
    ResnetSizes,
)


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Linear layers of the given sizes with an activation between each two, none behind the last."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False), start=2):
        is_gated = activation is nn.GLU and i < len(sizes)  # as many units again for the gates
        layers += [nn.Linear(fan_in, 2 * fan_out if is_gated else fan_out), activation()]
    return layers[:-1]


def conv_widths(image_shape: ImageShape, sizes: ConvSizes) -> list[int]:
    """Channels after each halving of an image: width, 2 width, 4 width, ..., at most max_width.

    An image is halved twice, and then on while height and width are at least 8. Odd sizes are rounded down.

    Raises:
        ValueError: if height or width cannot be halved twice.
    """
    _, height, width = image_shape
    smaller = min(height, width)
    if smaller < 4:
        raise ValueError(
            f"{sizes.base.group}={sizes.name} halves images at least twice: height and width must be at least 4, "
            f"got {height} x {width}; resize the images, or choose {sizes.base.group}=mlp"
        )
    num_halvings = max(2, smaller.bit_length() - 3)
    return [min(sizes.width << i, sizes.max_width) for i in range(num_halvings)]


def down(fan_in: int, fan_out: int) -> nn.Conv2d:
    """Convolution that halves height and width."""
    return nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)


def conv_trunk(
    image_shape: ImageShape, sizes: ConvSizes, activation: Callable[[], nn.Module]
) -> list[nn.Module]:
    """Layers from images (B, C, H, W) to hidden units (B, hidden_dim)."""
    channels, height, width = image_shape
    widths = conv_widths(image_shape, sizes)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([channels, *widths], widths, strict=False):
        layers += [down(fan_in, fan_out), activation()]
    flat = widths[-1] * (height >> len(widths)) * (width >> len(widths))
    return [*layers, nn.Flatten(), nn.Linear(flat, sizes.hidden_dim), activation()]


class ResidualBlock(nn.Module):
    """x + conv(f(conv(f(x)))) with activation f, after a GroupNorm if one is asked for. Never a BatchNorm.

    Source: He et al. 2016, arXiv:1603.05027; that it starts as the identity, without a norm: arXiv:1901.09321.
    """

    def __init__(
        self, width: int, normalization: str, activation: Callable[[], nn.Module] = nn.SiLU
    ) -> None:
        super().__init__()
        self.normalization = normalization
        norms: list[nn.Module] = [nn.Identity(), nn.Identity()]
        if normalization == "group":
            norms = [nn.GroupNorm(math.gcd(width, 8), width) for _ in range(2)]
        first, self.last = (nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(2))
        self.branch = nn.Sequential(
            norms[0], activation(), first, norms[1], activation(), self.last
        )

    @property
    def first(self) -> nn.Conv2d:
        """The first convolution of the branch."""
        layer = self.branch[2]
        assert isinstance(layer, nn.Conv2d)
        return layer

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.branch(x)
        return x + change


def residual_blocks(
    width: int, sizes: ResnetSizes, activation: Callable[[], nn.Module] = nn.SiLU
) -> list[nn.Module]:
    """The blocks at one size of the image."""
    return [ResidualBlock(width, sizes.normalization, activation) for _ in range(sizes.num_blocks)]


def resnet_trunk(
    image_shape: ImageShape, sizes: ResnetSizes, activation: Callable[[], nn.Module] = nn.SiLU
) -> list[nn.Module]:
    """Layers from images (B, C, H, W) to hidden units (B, hidden_dim)."""
    channels, height, width = image_shape
    widths = [sizes.width, *conv_widths(image_shape, sizes)]
    layers: list[nn.Module] = [nn.Conv2d(channels, sizes.width, kernel_size=3, padding=1)]
    for fan_in, fan_out in zip(widths, widths[1:], strict=False):
        layers += [*residual_blocks(fan_in, sizes, activation), activation(), down(fan_in, fan_out)]
    flat = widths[-1] * (height >> len(widths) - 1) * (width >> len(widths) - 1)
    layers += [*residual_blocks(widths[-1], sizes, activation), activation(), nn.Flatten()]
    return [*layers, nn.Linear(flat, sizes.hidden_dim), activation()]


def is_odd(image_shape: ImageShape, num_halvings: int) -> tuple[int, int]:
    """1 where height or width is odd after so many halvings, else 0."""
    _, height, width = image_shape
    return (height >> num_halvings) & 1, (width >> num_halvings) & 1


def up(fan_in: int, fan_out: int, extra: tuple[int, int] = (0, 0)) -> nn.ConvTranspose2d:
    """Transposed convolution that doubles height and width, and adds the extra pixels, 0 or 1."""
    return nn.ConvTranspose2d(
        fan_in, fan_out, kernel_size=4, stride=2, padding=1, output_padding=extra
    )
