"""Discriminators: images in [0, 1] to logits, positive for real."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.nets.blocks import ConvSizes, conv_trunk, he_init


class Discriminator(Component, nn.Module, abc.ABC, group="discriminator"):
    """Images (B, C, H, W) to logits (B,)."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape) -> Discriminator:
            return self.component(self, image_shape)

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
        he_init(self, output)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)
