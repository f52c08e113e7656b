"""Decoders: map latents to the parameters of a likelihood.

The GAN's generator is a decoder followed by the likelihood's mean. To add a decoder, write one
class here: it is then available as `decoder=NAME`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig, require
from vaegan.images import ImageShape
from vaegan.networks.blocks import (
    DecoderLayers,
    SkipExcitation,
    conv3x3,
    conv_widths,
    halved_size,
    hidden_layers,
    interpolate,
    residual_blocks,
    size_parity,
    upsample,
)
from vaegan.networks.initialization import he_init, output_layer
from vaegan.networks.sizes import ConvSizes, MlpActivation, MlpSizes, ResnetSizes


class Decoder(Component, nn.Module, group="decoder"):
    """Network from latents (B, latent_dim) to likelihood parameters (B, *param_shape).

    Args:
        layers: The network, applied in this order.
    """

    @dataclass
    class Config(ComponentConfig):
        """Settings of a decoder; `build(latent_dim, param_shape)` constructs it."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.net = DecoderLayers(*layers)
        he_init(self)

    def forward(self, z: Tensor) -> Tensor:
        """Return unconstrained parameters, (B, *param_shape), of latents (B, latent_dim)."""
        return self.net(z)

    @torch.no_grad()
    def set_output(self, params: Tensor) -> None:
        """Set the bias of the output layer so that the output starts near the given parameters.

        The bias of a convolution is set to the mean of each channel.

        Args:
            params: Likelihood parameters, (*param_shape).
        """
        bias = output_layer(self).bias
        assert bias is not None
        has_pixel_bias = len(bias) == params.numel()
        bias.copy_(params.flatten() if has_pixel_bias else params.mean((1, 2)))


class Conv(Decoder):
    """Fully connected layers, then convolutions that double the size; no norm layers.

    This is the mirror image of `encoder=conv`. With bilinear resampling, images are interpolated
    after a convolution and before its activation, and the full size, where details are drawn, has
    one more convolution than in the encoder.
    """

    @dataclass
    class Config(ConvSizes, Decoder.Config):
        name: str = "conv"
        # true: after each doubling of the size from the second on, multiply the channels by factors
        # that are computed from the smallest feature map (skip-layer excitation; requires
        # resampling=bilinear)
        skip_excitation: bool = False

        def __post_init__(self) -> None:
            super().__post_init__()
            is_possible = not self.skip_excitation or self.resampling == "bilinear"
            expected = "false with resampling=strided"
            require(is_possible, "skip_excitation", expected, self.skip_excitation)

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        widths = conv_widths(param_shape, config)[::-1]
        num_doublings = len(widths)
        first_shape = (widths[0], *halved_size(param_shape, num_doublings))
        layers = hidden_layers([latent_dim, config.hidden_dim, math.prod(first_shape)], "silu")
        layers.append(nn.Unflatten(1, first_shape))
        full_width = config.full_size_width(param_shape)
        if config.resampling == "bilinear":
            widths.append(full_width)
        for level, (in_channels, out_channels) in enumerate(pairwise(widths), start=1):
            layers += doubling_layers(in_channels, out_channels, config, param_shape, level)
            is_excited = config.skip_excitation and level > 1
            code_dim = math.prod(first_shape)
            layers.append(SkipExcitation(code_dim, out_channels) if is_excited else nn.SiLU())
        if config.resampling == "bilinear":
            layers += [conv3x3(full_width, full_width, config), nn.SiLU()]
            layers.append(conv3x3(full_width, param_shape[0], config))
        else:
            layers.append(upsample(full_width, param_shape[0], size_parity(param_shape, 0)))
        super().__init__(layers)


class Resnet(Decoder):
    """Residual blocks at every image size, with layers in between that double the size.

    This is the mirror image of `encoder=resnet`. With bilinear resampling there are no blocks at
    the full size.
    """

    @dataclass
    class Config(ResnetSizes, Decoder.Config):
        name: str = "resnet"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        full_width = config.full_size_width(param_shape)
        widths = [full_width, *conv_widths(param_shape, config)][::-1]
        if config.resampling == "bilinear":
            widths[-1] = max(1, full_width // 2)  # layers cost the most at full size
        num_doublings = len(widths) - 1
        first_shape = (widths[0], *halved_size(param_shape, num_doublings))
        layers = hidden_layers([latent_dim, config.hidden_dim], "silu")
        layers.append(nn.Linear(config.hidden_dim, math.prod(first_shape)))
        layers.append(nn.Unflatten(1, first_shape))
        layers += residual_blocks(widths[0], config)
        for level, (in_channels, out_channels) in enumerate(pairwise(widths), start=1):
            layers.append(nn.SiLU())
            layers += doubling_layers(in_channels, out_channels, config, param_shape, level)
            if level < num_doublings or config.resampling == "strided":
                layers += residual_blocks(out_channels, config)
        output = conv3x3(widths[-1], param_shape[0], config)
        super().__init__([*layers, nn.SiLU(), output])


def doubling_layers(
    in_channels: int, out_channels: int, sizes: ConvSizes, param_shape: ImageShape, level: int
) -> list[nn.Module]:
    """Build the layers of a decoder that double height and width for the `level`-th time.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        sizes: Sizes of the decoder.
        param_shape: Shape of the decoder's output.
        level: 1 for the first doubling.
    """
    num_left = len(conv_widths(param_shape, sizes)) - level
    if sizes.resampling == "strided":
        return [upsample(in_channels, out_channels, size_parity(param_shape, num_left))]
    conv = conv3x3(in_channels, out_channels, sizes)
    return [conv, interpolate(halved_size(param_shape, num_left))]


class Mlp(Decoder):
    """Fully connected layers; works with images of any shape."""

    @dataclass
    class Config(MlpActivation, MlpSizes, Decoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        dims = [latent_dim, *config.hidden_dims]
        layers = hidden_layers(dims, config.activation)
        layers += [nn.Linear(dims[-1], math.prod(param_shape)), nn.Unflatten(1, param_shape)]
        super().__init__(layers)
