"""Decoders: latents to the parameters of a likelihood. The decoder becomes the GAN's generator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.networks.blocks import (
    conv_widths,
    hidden_layers,
    is_odd,
    residual_blocks,
    size_after,
    up,
)
from vaegan.networks.initialization import he_init, output_layer
from vaegan.networks.sizes import ConvSizes, MlpActivation, MlpSizes, ResnetSizes


class Decoder(Component, nn.Module, group="decoder"):
    """Latents (B, latent_dim) to parameters (B, *param_shape): a sequence of layers."""

    @dataclass
    class Config(ComponentConfig):
        """Settings of a decoder; `build(latent_dim, param_shape)` constructs it."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)
        he_init(self)

    def forward(self, z: Tensor) -> Tensor:
        """Return parameters (B, *param_shape) of latents (B, latent_dim)."""
        return self.net(z)

    @torch.no_grad()
    def set_output(self, params: Tensor) -> None:
        """Set the last bias so that the output starts near `params`, (*param_shape).

        A bias by channel is set to the mean of each channel.
        """
        bias = output_layer(self).bias
        assert bias is not None
        is_by_pixel = len(bias) == params.numel()
        bias.copy_(params.flatten() if is_by_pixel else params.mean((1, 2)))


class Conv(Decoder):
    """Hidden layers, then transposed convolutions: the mirror of `encoder=conv`. No norm layers."""

    @dataclass
    class Config(ConvSizes, Decoder.Config):
        name: str = "conv"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        widths = conv_widths(param_shape, config)[::-1]
        num_doublings = len(widths)
        small = (widths[0], *size_after(param_shape, num_doublings))
        layers = hidden_layers([latent_dim, config.hidden_dim, math.prod(small)], "silu")
        layers.append(nn.Unflatten(1, small))
        for level, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
            layers += [up(fan_in, fan_out, is_odd(param_shape, num_doublings - level)), nn.SiLU()]
        layers.append(up(widths[-1], param_shape[0], is_odd(param_shape, 0)))
        super().__init__(layers)


class Resnet(Decoder):
    """Residual blocks at every image size, doubled by transposed convolutions.

    The mirror of `encoder=resnet`.
    """

    @dataclass
    class Config(ResnetSizes, Decoder.Config):
        name: str = "resnet"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        widths = [config.width, *conv_widths(param_shape, config)][::-1]
        num_doublings = len(widths) - 1
        small = (widths[0], *size_after(param_shape, num_doublings))
        layers = hidden_layers([latent_dim, config.hidden_dim], "silu")
        layers += [nn.Linear(config.hidden_dim, math.prod(small)), nn.Unflatten(1, small)]
        layers += residual_blocks(widths[0], config)
        for level, (fan_in, fan_out) in enumerate(pairwise(widths), start=1):
            layers += [nn.SiLU(), up(fan_in, fan_out, is_odd(param_shape, num_doublings - level))]
            layers += residual_blocks(fan_out, config)
        output = nn.Conv2d(config.width, param_shape[0], kernel_size=3, padding=1)
        super().__init__([*layers, nn.SiLU(), output])


class Mlp(Decoder):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(MlpActivation, MlpSizes, Decoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        dims = [latent_dim, *config.hidden_dims]
        layers = hidden_layers(dims, config.activation)
        layers += [nn.Linear(dims[-1], math.prod(param_shape)), nn.Unflatten(1, param_shape)]
        super().__init__(layers)
