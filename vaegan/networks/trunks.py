"""Trunks: map images to hidden units. Encoders and discriminators are a trunk and a linear head.

Because both use the same trunks, a GAN's discriminator can start from the trunk of a VAE's encoder.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vaegan.images import ImageShape
from vaegan.networks.blocks import (
    average_pool,
    conv3x3,
    conv_widths,
    downsample,
    halved_size,
    hidden_layers,
    residual_blocks,
)
from vaegan.networks.sizes import ACTIVATIONS, ConvSizes, MlpSizes, ResnetSizes


class Trunk(nn.Module):
    """Network from images in [0, 1], (B, C, H, W), to hidden units (B, num_features).

    Args:
        layers: The network, applied to images scaled to [-1, 1].
        num_features: Number of hidden units.
        architecture: Plain description of the layers. Weights can be copied between two trunks only
            if their descriptions are equal.
    """

    def __init__(
        self, layers: list[nn.Module], num_features: int, architecture: dict[str, Any]
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.num_features = num_features
        self.architecture = architecture

    def forward(self, images: Tensor) -> Tensor:
        """Return hidden units, (B, num_features), of images (B, C, H, W)."""
        return self.layers(images * 2 - 1)

    def hidden_units(self, images: Tensor) -> list[Tensor]:
        """Return the hidden units of images (B, C, H, W) after each layer with weights.

        They include what follows the layer, such as its activation and pooling; (B, ...) each. A
        residual block counts as one layer.
        """
        units = []
        x = images * 2 - 1
        for layer in self.layers:
            if next(layer.parameters(), None) is not None:
                units.append(x)
            x = layer(x)
        return [*units[1:], x]  # the first entry is the input of the first layer


def conv_trunk(image_shape: ImageShape, sizes: ConvSizes, activation: str) -> Trunk:
    """Build convolutions down to about 4 to 7 pixels, then a hidden layer; no norms."""
    widths = conv_widths(image_shape, sizes)
    layers: list[nn.Module] = []
    for level, (in_channels, out_channels) in enumerate(pairwise([image_shape[0], *widths])):
        if sizes.resampling == "bilinear":
            conv = conv3x3(in_channels, out_channels, sizes)
            pool = average_pool(halved_size(image_shape, level))
            layers += [conv, ACTIVATIONS[activation](), pool]
        else:
            layers += [downsample(in_channels, out_channels), ACTIVATIONS[activation]()]
    num_flat = widths[-1] * math.prod(halved_size(image_shape, len(widths)))
    layers += [nn.Flatten(), *hidden_layers([num_flat, sizes.hidden_dim], activation)]
    architecture = {
        "network": "conv",
        "widths": widths,
        "hidden_dim": sizes.hidden_dim,
        "resampling": sizes.resampling,
        "padding": sizes.padding or "zeros",
        "activation": activation,
    }
    return Trunk(layers, sizes.hidden_dim, architecture)


def resnet_trunk(image_shape: ImageShape, sizes: ResnetSizes, activation: str) -> Trunk:
    """Build residual blocks at every image size and a hidden layer.

    With bilinear resampling there are no blocks at the full size, where they cost the most.
    """
    widths = [sizes.full_size_width(image_shape), *conv_widths(image_shape, sizes)]
    layers: list[nn.Module] = [conv3x3(image_shape[0], widths[0], sizes)]
    for level, (in_channels, out_channels) in enumerate(pairwise(widths)):
        if level > 0 or sizes.resampling == "strided":
            layers += residual_blocks(in_channels, sizes, activation)
        layers.append(ACTIVATIONS[activation]())
        if sizes.resampling == "bilinear":
            layers.append(average_pool(halved_size(image_shape, level)))
            layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=1))
        else:
            layers.append(downsample(in_channels, out_channels))
    layers += residual_blocks(widths[-1], sizes, activation)
    num_flat = widths[-1] * math.prod(halved_size(image_shape, len(widths) - 1))
    layers += [ACTIVATIONS[activation](), nn.Flatten()]
    layers += hidden_layers([num_flat, sizes.hidden_dim], activation)
    architecture = {
        "network": "resnet",
        "widths": widths,
        "hidden_dim": sizes.hidden_dim,
        "resampling": sizes.resampling,
        "padding": sizes.padding or "zeros",
        "num_blocks": sizes.num_blocks,
        "normalization": sizes.normalization,
        "activation": activation,
    }
    return Trunk(layers, sizes.hidden_dim, architecture)


def mlp_trunk(image_shape: ImageShape, sizes: MlpSizes, activation: str) -> Trunk:
    """Build fully connected layers for images of any shape."""
    dims = [math.prod(image_shape), *sizes.hidden_dims]
    layers = [nn.Flatten(), *hidden_layers(dims, activation)]
    architecture = {
        "network": "mlp",
        "hidden_dims": list(sizes.hidden_dims),
        "activation": activation,
    }
    return Trunk(layers, dims[-1], architecture)
