"""Discriminators: map images to logits; positive means real.

To add a discriminator, write one class here: it is then available as `discriminator=NAME`.
"""

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
    """Network from images (B, C, H, W) to logits (B,); positive means real.

    It consists of a trunk and a linear head. No layer normalizes over the batch, so a logit depends
    on its own image only.

    Args:
        trunk: Network from images to hidden units.
    """

    @dataclass
    class Config(Activation):
        """Settings of a discriminator; `build(image_shape)` constructs it."""

        spectral_norm: bool = False  # true: divide each layer's weights by their spectral norm

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(trunk.num_features, 1)
        he_init(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, (B,), of images (B, C, H, W), in [0, 1] before their emphasis."""
        return self.head(self.trunk(images)).squeeze(1)

    def hidden_units(self, images: Tensor) -> list[Tensor]:
        """Return the hidden units after each layer of the trunk, of images (B, C, H, W)."""
        return self.trunk.hidden_units(images)


class Conv(Discriminator):
    """Convolutions down to about 4 to 7 pixels, then one hidden layer; no norm layers."""

    @dataclass
    class Config(ConvSizes, Discriminator.Config):
        name: str = "conv"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(conv_trunk(image_shape, config, config.activation))


class Resnet(Discriminator):
    """Residual blocks at every image size, then one hidden layer.

    By default the blocks have no norm layers and start as the identity (Fixup initialization).

    Source: Huang et al. 2024, arXiv:2501.05441, section 3 (the norm-free discriminator of R3GAN).
    """

    @dataclass
    class Config(ResnetSizes, Discriminator.Config):
        name: str = "resnet"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(resnet_trunk(image_shape, config, config.activation))


class Mlp(Discriminator):
    """Fully connected layers; works with images of any shape."""

    @dataclass
    class Config(MlpSizes, Discriminator.Config):
        name: str = "mlp"

    def __init__(self, config: Config, image_shape: ImageShape) -> None:
        super().__init__(mlp_trunk(image_shape, config, config.activation))


def apply_spectral_norm(network: nn.Module) -> None:
    """Divide the weights of every layer by an estimate of their largest singular value.

    Call this after the initial weights are set, because the estimate is computed from them. Each
    forward pass in training mode updates it by one step of power iteration; eval mode keeps it
    fixed. The last convolution of a new residual block has zero weights, which cannot be
    normalized: they are replaced by draws from N(0, 1), whose scale has no effect.

    Args:
        network: Network whose linear and convolutional layers are parametrized in place.

    Source: Miyato et al. 2018, arXiv:1802.05957, section 2.1.
    """
    for block in network.modules():
        if isinstance(block, ResidualBlock) and not block.last.weight.any():
            nn.init.normal_(block.last.weight)
    for layer in list(network.modules()):
        if isinstance(layer, Layer):
            parametrizations.spectral_norm(layer)
