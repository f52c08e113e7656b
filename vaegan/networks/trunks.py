"""Trunks: images to hidden units. Encoder and discriminator are a trunk and a linear head each.

As both have the same trunk, a GAN's discriminator can start from the trunk of a VAE's encoder.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vaegan.images import ImageShape
from vaegan.networks.blocks import conv_widths, down, hidden_layers, residual_blocks, size_after
from vaegan.networks.sizes import ACTIVATIONS, ConvSizes, MlpSizes, ResnetSizes


class Trunk(nn.Module):
    """Images in [0, 1], (B, C, H, W), to hidden units (B, num_features).

    Args:
        layers: What images in [-1, 1] pass through.
        num_features: Number of hidden units.
        architecture: Structure by name. Weights fit another trunk only if it is the same.
    """

    def __init__(
        self, layers: list[nn.Module], num_features: int, architecture: dict[str, Any]
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.num_features = num_features
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images * 2 - 1)


def conv_trunk(image_shape: ImageShape, sizes: ConvSizes, activation: str) -> Trunk:
    """Return strided convolutions down to about 4 to 7 pixels, then a hidden layer. No norms."""
    widths = conv_widths(image_shape, sizes)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise([image_shape[0], *widths]):
        layers += [down(fan_in, fan_out), ACTIVATIONS[activation]()]
    num_flat = widths[-1] * math.prod(size_after(image_shape, len(widths)))
    layers += [nn.Flatten(), *hidden_layers([num_flat, sizes.hidden_dim], activation)]
    architecture = {
        "network": "conv",
        "widths": widths,
        "hidden_dim": sizes.hidden_dim,
        "activation": activation,
    }
    return Trunk(layers, sizes.hidden_dim, architecture)


def resnet_trunk(image_shape: ImageShape, sizes: ResnetSizes, activation: str) -> Trunk:
    """Return residual blocks at every image size, halved by convolutions, then a hidden layer."""
    widths = [sizes.width, *conv_widths(image_shape, sizes)]
    layers: list[nn.Module] = [nn.Conv2d(image_shape[0], sizes.width, kernel_size=3, padding=1)]
    for fan_in, fan_out in pairwise(widths):
        layers += residual_blocks(fan_in, sizes, activation)
        layers += [ACTIVATIONS[activation](), down(fan_in, fan_out)]
    layers += residual_blocks(widths[-1], sizes, activation)
    num_flat = widths[-1] * math.prod(size_after(image_shape, len(widths) - 1))
    layers += [ACTIVATIONS[activation](), nn.Flatten()]
    layers += hidden_layers([num_flat, sizes.hidden_dim], activation)
    architecture = {
        "network": "resnet",
        "widths": widths,
        "hidden_dim": sizes.hidden_dim,
        "num_blocks": sizes.num_blocks,
        "normalization": sizes.normalization,
        "activation": activation,
    }
    return Trunk(layers, sizes.hidden_dim, architecture)


def mlp_trunk(image_shape: ImageShape, sizes: MlpSizes, activation: str) -> Trunk:
    """Return fully connected layers, for any image shape."""
    dims = [math.prod(image_shape), *sizes.hidden_dims]
    layers = [nn.Flatten(), *hidden_layers(dims, activation)]
    architecture = {
        "network": "mlp",
        "hidden_dims": list(sizes.hidden_dims),
        "activation": activation,
    }
    return Trunk(layers, dims[-1], architecture)
