"""Decoders: latents to the parameters that a likelihood reads. The decoder becomes the GAN's generator."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.nets.blocks import ConvSizes, MlpSizes, conv_widths, he_init, mlp, up


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


class Conv(Decoder):
    """The mirror of `encoder=conv`: hidden layers, then transposed convolutions. No normalisation layers."""

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
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
            layers += [up(fan_in, fan_out), nn.SiLU()]
        output = up(widths[-1], channels)
        self.net = nn.Sequential(*layers, output)
        he_init(self, output)

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.net(z)
        return params


class Mlp(Decoder):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(MlpSizes, Decoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, latent_dim: int, param_shape: ImageShape) -> None:
        super().__init__(config, latent_dim, param_shape)
        layers = mlp([latent_dim, *config.hidden_dims, math.prod(param_shape)], nn.SiLU)
        self.net = nn.Sequential(*layers, nn.Unflatten(1, param_shape))
        he_init(self, layers[-1])  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        params: Tensor = self.net(z)
        return params
