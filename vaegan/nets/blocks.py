"""Layers, initialisation and shape rules that the network files share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from vaegan.config import ComponentConfig, require
from vaegan.images import ImageShape

OUTPUT_GAIN = 0.1  # of an output layer: at the start p(x|z) and q(z|x) hardly depend on their input


@dataclass
class ConvSizes(ComponentConfig):
    """Sizes of a network that halves images, or doubles them, with strided convolutions."""

    width: int = 32  # channels at half the image size; doubled at each further halving
    max_width: int = 512  # channels at most
    hidden_dim: int = 256  # units of the hidden layer

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("width", "max_width", "hidden_dim"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))


@dataclass
class MlpSizes(ComponentConfig):
    """Sizes of a fully connected network."""

    hidden_dims: list[int] = field(default_factory=lambda: [512, 512])  # units of each hidden layer

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.hidden_dims:
            require(size >= 1, "hidden_dims", "a list of numbers of at least 1", self.hidden_dims)


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Linear layers of the given sizes with an activation between each two, none behind the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return layers[:-1]


def conv_widths(image_shape: ImageShape, sizes: ConvSizes) -> list[int]:
    """Channels after each halving of an image: width, 2 width, 4 width, ..., at most max_width.

    An image is halved twice, and then on while height and width are even and at least 8.

    Raises:
        ValueError: if height or width cannot be halved twice.
    """
    _, height, image_width = image_shape
    if height % 4 or image_width % 4:
        raise ValueError(
            f"{sizes.base.group}={sizes.name} halves images at least twice: height and width must be multiples of 4, "
            f"got {height} x {image_width}; resize the images, or choose another {sizes.base.group}"
        )
    num_halvings, smaller = 2, min(height, image_width) // 4
    while smaller >= 8 and (height >> num_halvings) % 2 == 0 and (image_width >> num_halvings) % 2 == 0:
        num_halvings, smaller = num_halvings + 1, smaller // 2
    return [min(sizes.width << i, sizes.max_width) for i in range(num_halvings)]


def down(fan_in: int, fan_out: int) -> nn.Conv2d:
    """Convolution that halves height and width."""
    return nn.Conv2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)


def conv_trunk(image_shape: ImageShape, sizes: ConvSizes, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Layers from images (B, C, H, W) to hidden units (B, hidden_dim)."""
    channels, height, width = image_shape
    widths = conv_widths(image_shape, sizes)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip([channels, *widths], widths, strict=False):
        layers += [down(fan_in, fan_out), activation()]
    flat = widths[-1] * (height >> len(widths)) * (width >> len(widths))
    return [*layers, nn.Flatten(), nn.Linear(flat, sizes.hidden_dim), activation()]


def up(fan_in: int, fan_out: int) -> nn.ConvTranspose2d:
    """Transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(fan_in, fan_out, kernel_size=4, stride=2, padding=1)


def he_init(network: nn.Module, output: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Weights ~ N(0, 2 / fan-in), biases zero; the output layer's weights times `OUTPUT_GAIN`.

    The fan-in is the number of inputs that reach one output, which for a transposed convolution is
    in_channels * kernel area / stride area. Source: He et al. 2015, arXiv:1502.01852.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):
                fan_in = layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
            gain = OUTPUT_GAIN if layer is output else 1.0
            nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / fan_in))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
