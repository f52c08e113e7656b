"""Discriminators: images in [0, 1] to logits, positive for real."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vaegan.config import Component
from vaegan.images import ImageShape
from vaegan.networks.blocks import ResidualBlock, conv_trunk, mlp, resnet_trunk
from vaegan.networks.initialization import Layer, he_init
from vaegan.networks.sizes import ConvSizes, MlpSizes, ResnetSizes, TrunkActivation


class Discriminator(Component, nn.Module, abc.ABC, group="discriminator"):
    """Images (B, C, H, W) to logits (B,)."""

    @dataclass
    class Config(TrunkActivation):
        spectral_norm: bool = (
            False  # divide the weights of every layer by their largest singular value
        )

        def build(self, image_shape: ImageShape) -> Discriminator:
            built: Discriminator = self.component(self, image_shape)
            if self.spectral_norm:
                apply_spectral_norm(built)
            return built

    def __init__(self, config: Any, image_shape: ImageShape) -> None:
        super().__init__()

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,) of images (B, C, H, W): each depends on its own image only."""


class Conv(Discriminator):
    """Strided convolutions and one hidden layer. No normalization: logits never mix images of a batch."""

    @dataclass
    class Config(ConvSizes, Discriminator.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        output = nn.Linear(config.hidden_dim, 1)
        self.net = nn.Sequential(*conv_trunk(image_shape, config, config.build_activation), output)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)


class Resnet(Discriminator):
    """Residual blocks at every size of the image and one hidden layer; fix-up initialization in place of a norm.

    Source: Huang et al. 2024, arXiv:2501.05441, section 3: the norm-free discriminator of R3GAN.
    """

    @dataclass
    class Config(ResnetSizes, Discriminator.Config):
        name: str = "resnet"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        output = nn.Linear(config.hidden_dim, 1)
        self.net = nn.Sequential(
            *resnet_trunk(image_shape, config, config.build_activation), output
        )
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)


class Mlp(Discriminator):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(MlpSizes, Discriminator.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(config, image_shape)
        layers = mlp([math.prod(image_shape), *config.hidden_dims, 1], config.build_activation)
        self.net = nn.Sequential(nn.Flatten(), *layers)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images * 2 - 1)
        return logits.squeeze(1)


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide the weights of every layer, whenever they are read, by an estimate of their largest singular value.

    Each reading in training mode takes one step of the power iteration; in eval mode the estimate stands. The last
    layers of residual blocks, which start at 0 and so have no direction, are drawn anew: their scale does not matter.
    Source: Miyato et al. 2018, arXiv:1802.05957, section 2.1.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock):
            nn.init.normal_(block.last.weight)
    for layer in list(network.modules()):
        if isinstance(layer, Layer):
            parametrizations.spectral_norm(layer)
