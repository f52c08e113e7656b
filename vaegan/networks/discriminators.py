"""Discriminators: images in [0, 1] to logits, positive for real."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from vaegan.config import Component
from vaegan.images import ImageShape
from vaegan.networks.blocks import ResidualBlock
from vaegan.networks.initialization import Layer, he_init
from vaegan.networks.sizes import Activation, ConvSizes, MlpSizes, ResnetSizes
from vaegan.networks.trunks import Trunk, conv_trunk, mlp_trunk, resnet_trunk


class Discriminator(Component, nn.Module, group="discriminator"):
    """Images (B, C, H, W) to logits (B,): a trunk and a linear head.

    No layer normalizes over the batch: a logit depends on its own image only.
    """

    @dataclass
    class Config(Activation):
        """Settings of a discriminator; `build(image_shape)` constructs it."""

        spectral_norm: bool = False  # divide each layer's weights by their largest singular value

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, 1)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B,) of images (B, C, H, W)."""
        return self.head(self.trunk(images)).squeeze(1)


class Conv(Discriminator):
    """Strided convolutions and one hidden layer."""

    @dataclass
    class Config(ConvSizes, Discriminator.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(conv_trunk(image_shape, config, config.activation))


class Resnet(Discriminator):
    """Residual blocks at every image size and one hidden layer; fix-up initialization, no norm.

    Source: Huang et al. 2024, arXiv:2501.05441, section 3: the norm-free discriminator of R3GAN.
    """

    @dataclass
    class Config(ResnetSizes, Discriminator.Config):
        name: str = "resnet"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(resnet_trunk(image_shape, config, config.activation))


class Mlp(Discriminator):
    """Fully connected layers, for any image shape."""

    @dataclass
    class Config(MlpSizes, Discriminator.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(mlp_trunk(image_shape, config, config.activation))


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide the weights of every layer by a running estimate of their largest singular value.

    To be applied once the network has its initial weights: the estimate starts converged. Each
    forward pass in training mode takes one step of the power iteration; in eval mode the estimate
    stands. The last layers of fresh residual blocks are zero and so have no direction: they are
    drawn from a normal distribution, whose scale does not matter.

    Source: Miyato et al. 2018, arXiv:1802.05957, section 2.1.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock) and not block.last.weight.any():
            nn.init.normal_(block.last.weight)
    for layer in list(network.modules()):
        if isinstance(layer, Layer):
            parametrizations.spectral_norm(layer)
