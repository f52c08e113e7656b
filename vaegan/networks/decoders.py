"""Decoders: latents to the parameters that a likelihood reads. The decoder becomes the GAN's generator."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.networks.blocks import conv_widths, is_odd, mlp, residual_blocks, up
from vaegan.networks.initialization import he_init, output_layer
from vaegan.networks.sizes import ACTIVATIONS, ActivatedMlpSizes, ConvSizes, ResnetSizes


class Decoder(Component, nn.Module, abc.ABC, group="decoder"):
    """Latents (B, latent_dim) to parameters (B, *param_shape)."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, latent_dim: int, param_shape: ImageShape) -> Decoder:
            built: Decoder = self.component(self, latent_dim, param_shape)
            return built

    def __init__(self, config: Any, latent_dim: int, param_shape: ImageShape) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, z: Tensor) -> Tensor:
        """Parameters (B, *param_shape) of latents (B, latent_dim)."""

    def start_at(self, params: Tensor) -> None:
        """Set the last bias so that the output starts near `params`, (*param_shape), or near their mean by channel."""
        bias = output_layer(self).bias
        assert bias is not None
        with torch.no_grad():
            bias.copy_(params.flatten() if len(bias) == params.numel() else params.mean((1, 2)))


class Conv(Decoder):
    """The mirror of `encoder=conv`: hidden layers, then transposed convolutions. No normalization layers."""

    @dataclass
    class Config(ConvSizes, Decoder.Config):
        name: str = "conv"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, param_shape)
        channels, height, width = param_shape
        widths = conv_widths(param_shape, config)[::-1]
        small = (widths[0], height >> len(widths), width >> len(widths))
        layers = mlp([latent_dim, config.hidden_dim, math.prod(small)], nn.SiLU)
        layers += [nn.SiLU(), nn.Unflatten(1, small)]
        for level, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            layers += [up(fan_in, fan_out, is_odd(param_shape, len(widths) - level)), nn.SiLU()]
        output = up(widths[-1], channels, is_odd(param_shape, 0))
        self.net = nn.Sequential(*layers, output)
        he_init(self)

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.net(z)
        return params


class Resnet(Decoder):
    """The mirror of `encoder=resnet`: residual blocks at every size of the image, doubled by transposed ones."""

    @dataclass
    class Config(ResnetSizes, Decoder.Config):
        name: str = "resnet"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, param_shape)
        channels, height, width = param_shape
        widths = [config.width, *conv_widths(param_shape, config)][::-1]
        num_doublings = len(widths) - 1
        small = (widths[0], height >> num_doublings, width >> num_doublings)
        layers = mlp([latent_dim, config.hidden_dim, math.prod(small)], nn.SiLU)
        layers += [nn.Unflatten(1, small), *residual_blocks(widths[0], config)]
        for level, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False), start=1):
            layers += [nn.SiLU(), up(fan_in, fan_out, is_odd(param_shape, num_doublings - level))]
            layers += residual_blocks(fan_out, config)
        output = nn.Conv2d(config.width, channels, kernel_size=3, padding=1)
        self.net = nn.Sequential(*layers, nn.SiLU(), output)
        he_init(self)

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.net(z)
        return params


class Mlp(Decoder):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(ActivatedMlpSizes, Decoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, param_shape)
        layers = mlp(
            [latent_dim, *config.hidden_dims, math.prod(param_shape)],
            ACTIVATIONS[config.activation],
        )
        self.net = nn.Sequential(*layers, nn.Unflatten(1, param_shape))
        he_init(self)

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.net(z)
        return params
