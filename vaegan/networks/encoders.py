"""Encoders: map images in [0, 1] to the parameters of a posterior.

To add an encoder, write one class here: it is then available as `encoder=NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vaegan.config import Component, ComponentConfig
from vaegan.images import ImageShape
from vaegan.networks.initialization import he_init
from vaegan.networks.sizes import Activation, ConvSizes, MlpActivation, MlpSizes, ResnetSizes
from vaegan.networks.trunks import Trunk, conv_trunk, mlp_trunk, resnet_trunk


class Encoder(Component, nn.Module, group="encoder"):
    """Network from images (B, C, H, W) to features (B, num_features).

    It consists of a trunk and a linear head.

    Args:
        trunk: Network from images to hidden units.
        num_features: Number of outputs, `Posterior.num_features`.
    """

    @dataclass
    class Config(ComponentConfig):
        """Settings of an encoder; `build(image_shape, num_features)` constructs it."""

    def __init__(self, trunk: Trunk, num_features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, num_features)
        he_init(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return unconstrained features, (B, num_features), of images in [0, 1], (B, C, H, W)."""
        return self.head(self.trunk(x))


class Conv(Encoder):
    """Convolutions down to about 4 to 7 pixels, then one hidden layer; no norm layers."""

    @dataclass
    class Config(Activation, ConvSizes, Encoder.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(conv_trunk(image_shape, config, config.activation), num_features)


class Resnet(Encoder):
    """Residual blocks at every image size, then one hidden layer.

    With bilinear resampling there are none at the full size.
    """

    @dataclass
    class Config(Activation, ResnetSizes, Encoder.Config):
        name: str = "resnet"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(resnet_trunk(image_shape, config, config.activation), num_features)


class Mlp(Encoder):
    """Fully connected layers; works with images of any shape."""

    @dataclass
    class Config(MlpActivation, MlpSizes, Encoder.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape, num_features: int) -> None:
        super().__init__(mlp_trunk(image_shape, config, config.activation), num_features)
