"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

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


@dataclass
class ResnetSizes(ConvSizes):
    """Sizes of a network of residual blocks at every size of the image, from the full one down."""

    num_blocks: int = 1  # residual blocks at each size
    normalization: str = "none"  # none (the blocks start as the identity), or group (GroupNorm)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_blocks >= 1, "num_blocks", "at least 1", self.num_blocks)
        kinds = ("none", "group")
        require(
            self.normalization in kinds,
            "normalization",
            f"one of {', '.join(kinds)}",
            self.normalization,
        )


@dataclass
class MlpSizes(ComponentConfig):
    """Sizes of a fully connected network."""

    hidden_dims: list[int] = field(default_factory=lambda: [512, 512])  # units of each hidden layer

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.hidden_dims:
            require(size >= 1, "hidden_dims", "a list of numbers of at least 1", self.hidden_dims)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "glu": nn.GLU,  # half of the units gate the other half: h * sigmoid(g)
}


@dataclass
class ActivatedMlpSizes(MlpSizes):
    """Sizes of a fully connected network, and what stands between its layers."""

    activation: str = "silu"  # silu, relu, tanh, or glu (gated linear units)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.activation in ACTIVATIONS,
            "activation",
            f"one of {', '.join(ACTIVATIONS)}",
            self.activation,
        )


TRUNK_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


@dataclass
class TrunkActivation(ComponentConfig):
    """What stands between the layers of a network that reads images: an encoder's weights fit a discriminator only
    where it is the same in both."""

    activation: str = "silu"  # silu, or leaky_relu (slope 0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ", ".join(TRUNK_ACTIVATIONS)
        require(
            self.activation in TRUNK_ACTIVATIONS, "activation", f"one of {known}", self.activation
        )

    def build_activation(self) -> nn.Module:
        """A new activation layer."""
        return TRUNK_ACTIVATIONS[self.activation]()
