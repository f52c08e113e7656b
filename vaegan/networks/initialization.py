"""Weight initialization that keeps the signal's variance across layers without norm layers."""

from __future__ import annotations

import math

import torch
from torch import nn

from vaegan.networks.blocks import ResidualBlock, SkipExcitation

# Factor on the weights of an output layer: p(x|z) and q(z|x) then start almost constant.
OUTPUT_GAIN = 0.1
Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # layers with weights and a bias


def output_layer(network: nn.Module) -> Layer:
    """Return the last linear or convolutional layer of a network."""
    return [layer for layer in network.modules() if isinstance(layer, Layer)][-1]


def fan_in(layer: Layer) -> int:
    """Return the number of inputs of each output unit of a layer.

    A transposed convolution has in_channels * kernel area / stride area.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
    return layer.weight[0].numel()


def he_init(network: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan_in) and set biases to zero, in place.

    The weights of the output layer are multiplied by `OUTPUT_GAIN`, and those of the last layer of
    a skip-layer excitation are zero. Residual blocks get the Fixup initialization: the weights of
    the last convolution are zero, and in blocks without a norm the weights of the first convolution
    are multiplied by L^(-1/2), with L the number of blocks.

    Source: He et al. 2015, arXiv:1502.01852, eq. 10; Zhang et al. 2019, arXiv:1901.09321,
    section 3, L^(-1/(2m - 2)) with m = 2 layers per block.
    """
    output = output_layer(network)
    for layer in network.modules():
        if isinstance(layer, Layer):
            gain = OUTPUT_GAIN if layer is output else 1.0
            nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / fan_in(layer)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in network.modules():
        if isinstance(layer, SkipExcitation):
            nn.init.zeros_(layer.last.weight)
    blocks = [block for block in network.modules() if isinstance(block, ResidualBlock)]
    for block in blocks:
        nn.init.zeros_(block.last.weight)
        if block.normalization == "none":
            with torch.no_grad():
                block.first.weight.mul_(len(blocks) ** -0.5)
