"""Layers of the networks, and their channels and image sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from vaegan.images import ImageShape
from vaegan.networks.sizes import ACTIVATIONS, ConvSizes, ResnetSizes


def hidden_layers(dims: Sequence[int], activation: str) -> list[nn.Module]:
    """Build fully connected layers of the given sizes, each followed by the activation.

    Args:
        dims: Size of the input, then of each layer's output.
        activation: A key of `ACTIVATIONS`.
    """
    layers: list[nn.Module] = []
    width_factor = 2 if activation == "glu" else 1  # GLU halves the number of units
    for in_features, out_features in pairwise(dims):
        linear = nn.Linear(in_features, width_factor * out_features)
        layers += [linear, ACTIVATIONS[activation]()]
    return layers


def conv_widths(image_shape: ImageShape, sizes: ConvSizes) -> list[int]:
    """Return the channels after each halving of an image: width, 2 width, ..., up to max_width.

    An image is halved at least twice, then until height or width is less than 8. Odd sizes are
    rounded down. With bilinear resampling, `width` counts the channels after the second halving,
    because convolutions then work at the larger of two sizes, where they cost more.

    Raises:
        ValueError: Height or width is less than 4.
    """
    _, height, width = image_shape
    smaller = min(height, width)
    if smaller < 4:
        group = sizes.base.group
        raise ValueError(
            f"{group}={sizes.name} halves images at least twice, so height and width must be at "
            f"least 4; got {height} x {width}. Resize the images, or choose {group}=mlp"
        )
    num_halvings = max(2, smaller.bit_length() - 3)
    first_width = sizes.full_size_width(image_shape)
    return [min(first_width << i, sizes.max_width) for i in range(num_halvings)]


def halved_size(image_shape: ImageShape, num_halvings: int) -> tuple[int, int]:
    """Return height and width after the given number of halvings, rounded down."""
    _, height, width = image_shape
    return height >> num_halvings, width >> num_halvings


def downsample(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Build a strided convolution that halves height and width, rounded down."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1)


def upsample(
    in_channels: int, out_channels: int, output_padding: tuple[int, int] = (0, 0)
) -> nn.ConvTranspose2d:
    """Build a transposed convolution that doubles height and width, plus `output_padding`."""
    return nn.ConvTranspose2d(
        in_channels,
        out_channels,
        kernel_size=4,
        stride=2,
        padding=1,
        output_padding=output_padding,
    )


def size_parity(image_shape: ImageShape, num_halvings: int) -> tuple[int, int]:
    """Return height and width modulo 2 after the given number of halvings.

    With this `output_padding`, `upsample` restores an odd height or width.
    """
    height, width = halved_size(image_shape, num_halvings)
    return height & 1, width & 1


def conv3x3(in_channels: int, out_channels: int, sizes: ConvSizes) -> nn.Conv2d:
    """Build a 3 x 3 convolution that keeps the image size."""
    mode: Literal["zeros", "replicate"] = "replicate" if sizes.padding == "replicate" else "zeros"
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, padding_mode=mode)


def average_pool(size: tuple[int, int]) -> nn.AvgPool2d:
    """Build a layer that halves height and width, rounded down, by means over 2 or 3 pixels.

    A mean has no response at the highest frequency, which would be aliased.

    Args:
        size: Height and width of the input.
    """
    kernel_size = (2 + size[0] % 2, 2 + size[1] % 2)
    return nn.AvgPool2d(kernel_size, stride=2)


def interpolate(size: tuple[int, int]) -> nn.Upsample:
    """Build a layer that enlarges images to the given height and width by bilinear interpolation.

    Unlike a transposed convolution, it adds no checkerboard pattern for any input.

    Source: Odena et al. 2016, Deconvolution and Checkerboard Artifacts, doi:10.23915/distill.00003.
    """
    return nn.Upsample(size=size, mode="bilinear", align_corners=False)


class SkipExcitation(nn.Module):
    """Activation whose output channels are scaled by factors computed from an early layer.

    The factors are between 0 and 2. `he_init` makes all of them start at 1.

    Args:
        code_dim: Units of the early layer.
        channels: Channels of the input.

    Source: Liu et al. 2021, arXiv:2101.04775, section 3.1, with twice the sigmoid.
    """

    def __init__(self, code_dim: int, channels: int) -> None:
        super().__init__()
        self.activation = nn.SiLU()
        self.first = nn.Linear(code_dim, channels)
        self.last = nn.Linear(channels, channels)

    def forward(self, hidden: Tensor, code: Tensor) -> Tensor:
        """Return the activated and scaled hidden units, (B, channels, H, W).

        Args:
            hidden: Hidden units, (B, channels, H, W).
            code: Units of the early layer, (B, code_dim).
        """
        factors = 2 * self.last(self.activation(self.first(code))).sigmoid()
        return self.activation(hidden) * factors[:, :, None, None]


class DecoderLayers(nn.Sequential):
    """Layers of a decoder.

    A skip-layer excitation gets the last hidden units without positions in addition to its input.
    """

    def forward(
        self, z: Tensor, change_input: Callable[[int, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return the output for latents (B, latent_dim).

        Args:
            z: Latents.
            change_input: Called with the index and the input of each layer; returns the input to
                use.
        """
        hidden = code = z
        for i, layer in enumerate(self):
            if change_input is not None:
                hidden = change_input(i, hidden)
            if hidden.dim() == 2:
                code = hidden
            hidden = layer(hidden, code) if isinstance(layer, SkipExcitation) else layer(hidden)
        return hidden


class ResidualBlock(nn.Module):
    """Pre-activation residual block: x + conv(f(conv(f(x)))) with activation f.

    Input and output are (B, width, H, W). With normalization=group, a GroupNorm precedes each
    activation. `he_init` makes the block start as the identity.

    Source: He et al. 2016, arXiv:1603.05027; without a norm: Zhang et al. 2019, arXiv:1901.09321.
    """

    def __init__(self, width: int, sizes: ResnetSizes, activation: str = "silu") -> None:
        super().__init__()
        self.normalization = sizes.normalization
        self.last = conv3x3(width, width, sizes)
        self.first_norm = self._build_norm(width)
        self.first = conv3x3(width, width, sizes)
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
    """Build the `num_blocks` residual blocks of one image size."""
    return [ResidualBlock(width, sizes, activation) for _ in range(sizes.num_blocks)]
