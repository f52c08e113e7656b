"""Encoders: images in [0, 1] to the features that a posterior reads."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.networks.blocks import conv_trunk, mlp, resnet_trunk
from vaegan.networks.initialization import he_init
from vaegan.networks.sizes import (
    ACTIVATIONS,
    ActivatedMlpSizes,
    ConvSizes,
    ResnetSizes,
    TrunkActivation,
)


class Encoder(Component, nn.Module, abc.ABC, group="encoder"):
    """Images (B, C, H, W) to features (B, num_features)."""

    @dataclass
    class Config(ComponentConfig):
        def build(self, image_shape: ImageShape, num_features: int) -> Encoder:
            built: Encoder = self.component(self, image_shape, num_features)
            return built

    def __init__(self, config: Any, image_shape: ImageShape, num_features: int) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Features (B, num_features) of images (B, C, H, W)."""


class Conv(Encoder):
    """Strided convolutions down to about 4 to 7 pixels, then one hidden layer. No normalization layers."""

    @dataclass
    class Config(TrunkActivation, ConvSizes, Encoder.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(config, image_shape, num_features)
        output = nn.Linear(config.hidden_dim, num_features)
        self.net = nn.Sequential(*conv_trunk(image_shape, config, config.build_activation), output)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x * 2 - 1)
        return features


class Resnet(Encoder):
    """Residual blocks at every size of the image, halved by strided convolutions; then one hidden layer."""

    @dataclass
    class Config(TrunkActivation, ResnetSizes, Encoder.Config):
        name: str = "resnet"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(config, image_shape, num_features)
        output = nn.Linear(config.hidden_dim, num_features)
        self.net = nn.Sequential(
            *resnet_trunk(image_shape, config, config.build_activation), output
        )
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x * 2 - 1)
        return features


class Mlp(Encoder):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(ActivatedMlpSizes, Encoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(config, image_shape, num_features)
        layers = mlp(
            [math.prod(image_shape), *config.hidden_dims, num_features],
            ACTIVATIONS[config.activation],
        )
        self.net = nn.Sequential(nn.Flatten(), *layers)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.net(x * 2 - 1)
        return features
