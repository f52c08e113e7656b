"""Initialization of networks whose signal keeps its scale without norm layers."""

from __future__ import annotations

import math

import torch
from torch import nn

from vaegan.networks.blocks import ResidualBlock

OUTPUT_GAIN = 0.1  # of an output layer: at first p(x|z) and q(z|x) hardly depend on their input
Layer = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # layers with weight and bias


def output_layer(network: nn.Module) -> Layer:
    """Return the last layer of a network."""
    return [layer for layer in network.modules() if isinstance(layer, Layer)][-1]


def fan_in(layer: Layer) -> int:
    """Return the number of inputs that reach one output of a layer.

    For a transposed convolution this is in_channels * kernel area / stride area.
    """
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
    return layer.weight[0].numel()


def he_init(network: nn.Module) -> None:
    """Draw weights from N(0, 2 / fan-in) and set biases to zero.

    The output layer's weights are multiplied by `OUTPUT_GAIN`. Fix-up of residual blocks: the last
    layer of each has zero weights, and, without a norm, the first one is scaled by L^(-1/2), with L
    the number of blocks in the network.

    Source: He et al. 2015, arXiv:1502.01852; Zhang et al. 2019, arXiv:1901.09321, section 3, with
    m = 2 layers.
    """
    output = output_layer(network)
    for layer in network.modules():
        if isinstance(layer, Layer):
            gain = OUTPUT_GAIN if layer is output else 1.0
            nn.init.normal_(layer.weight, std=gain * math.sqrt(2 / fan_in(layer)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    blocks = [block for block in network.modules() if isinstance(block, ResidualBlock)]
    for block in blocks:
        nn.init.zeros_(block.last.weight)
        if block.normalization == "none":
            with torch.no_grad():
                block.first.weight.mul_(len(blocks) ** -0.5)
