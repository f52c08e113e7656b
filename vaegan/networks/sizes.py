"""Sizes and activations of networks: the config fields that several networks share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from vaegan.config import ComponentConfig, require


@dataclass
class ConvSizes(ComponentConfig):
    """Sizes of a network that halves images, or doubles them, with strided convolutions."""

    width: int = 32  # channels at half the image size; doubled at each further halving
    max_width: int = 512  # channels at most
    hidden_dim: int = 256  # units of the hidden layer

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("width", "max_width", "hidden_dim"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))


NORMALIZATIONS = ("none", "group")


@dataclass
class ResnetSizes(ConvSizes):
    """Sizes of a network of residual blocks at every image size, from the full one down."""

    num_blocks: int = 1  # residual blocks at each size
    normalization: str = "none"  # none (the blocks start as the identity), or group (GroupNorm)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_blocks >= 1, "num_blocks", "at least 1", self.num_blocks)
        is_known = self.normalization in NORMALIZATIONS
        expected = f"one of {', '.join(NORMALIZATIONS)}"
        require(is_known, "normalization", expected, self.normalization)


@dataclass
class MlpSizes(ComponentConfig):
    """Sizes of a fully connected network."""

    hidden_dims: list[int] = field(default_factory=lambda: [512, 512])  # units of each hidden layer

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "a list of numbers of at least 1"
        require(min(self.hidden_dims, default=1) >= 1, "hidden_dims", expected, self.hidden_dims)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "glu": nn.GLU,  # half of the units gate the other half: h * sigmoid(g)
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


@dataclass
class Activation(ComponentConfig):
    """Activation between the layers of a convolutional network, or of a discriminator.

    The weights of an encoder fit a discriminator only if both have the same one.
    """

    ACTIVATIONS: ClassVar[tuple[str, ...]] = ("silu", "leaky_relu")
    activation: str = "silu"  # silu, or leaky_relu (slope 0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = f"one of {', '.join(self.ACTIVATIONS)}"
        require(self.activation in self.ACTIVATIONS, "activation", expected, self.activation)


@dataclass
class MlpActivation(Activation):
    """Activation between the layers of a fully connected encoder or decoder."""

    ACTIVATIONS: ClassVar[tuple[str, ...]] = ("silu", "relu", "tanh", "glu")
    activation: str = "silu"  # silu, relu, tanh, or glu (gated linear units)
