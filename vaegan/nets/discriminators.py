"""Discriminators: images in [0, 1] to logits, positive for real."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.nets.blocks import ConvSizes, MlpSizes, conv_trunk, he_init, mlp


class Discriminator(Component, nn.Module, abc.ABC, group="discriminator"):
    """Images (B, C, H, W) to logits (B,)."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> Discriminator:
            built: Discriminator = self.component(self, image_shape)
            return built

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) of images (B, C, H, W): each depends on its own image only."""


class Conv(Discriminator):
    """Strided convolutions and one hidden layer, leaky. No normalisation: logits never mix images of a batch."""

    @dataclass
    class Config(ConvSizes, Discriminator.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        output = nn.Linear(config.hidden_dim, 1)
        self.net = nn.Sequential(*conv_trunk(image_shape, config, lambda: nn.LeakyReLU(0.2)), output)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)


class Mlp(Discriminator):
    """Fully connected layers, leaky, for any image shape."""

    @dataclass
    class Config(MlpSizes, Discriminator.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        layers = mlp([math.prod(image_shape), *config.hidden_dims, 1], lambda: nn.LeakyReLU(0.2))
        self.net = nn.Sequential(nn.Flatten(), *layers)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)
