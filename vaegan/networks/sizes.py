"""Config fields that several networks share: sizes and activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from torch import nn

from vaegan.config import ComponentConfig, require
from vaegan.images import ImageShape

T = TypeVar("T", bound=ComponentConfig)

RESAMPLINGS = ("strided", "bilinear")
PADDINGS = ("zeros", "replicate")
DEFAULT_WIDTH = 32
LARGE_IMAGE_SIZE = 32  # pixels, smallest height or width of large images
# Fewest training images for wide networks. Not tuned: they were worse with 607 images (one run).
MIN_IMAGES = 1000


@dataclass
class ConvSizes(ComponentConfig):
    """Sizes of a convolutional network that repeatedly halves or doubles the image size."""

    LARGE_IMAGE_WIDTH: ClassVar[int] = 64  # default width for large images; tuned at 32 pixels

    # channels at a quarter of the image size, >= 1; half as many at larger sizes (decoder=resnet: a
    # quarter at the full size), twice as many at each further halving; strided: channels at half
    # the size (resnet: also at the full size); null: 32, but 64 for conv with bilinear resampling
    # and at least 1,000 training images of at least 32 pixels in height and width; discriminator:
    # that of the VAE's encoder if both have the same name and resampling
    width: int | None = None
    max_width: int = 512  # upper limit on the number of channels, >= 1
    hidden_dim: int = 256  # units of the fully connected hidden layer, >= 1
    # layers that change the image size: bilinear (average pooling and bilinear interpolation; no
    # checkerboard patterns) or strided (strided and transposed convolutions; more weights at the
    # same width)
    resampling: str = "bilinear"
    # padding of 3 x 3 convolutions: zeros, or replicate (repeat the values at the border; requires
    # resampling=bilinear); null: zeros, but replicate in a decoder for natural images with bilinear
    # resampling, where zeros cause frames in samples; discriminator: that of the VAE's encoder if
    # both have the same name and resampling
    padding: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        is_valid = self.width is None or self.width >= 1
        require(is_valid, "width", "at least 1, or null", self.width)
        for key in ("max_width", "hidden_dim"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        is_known = self.resampling in RESAMPLINGS
        require(is_known, "resampling", f"one of {', '.join(RESAMPLINGS)}", self.resampling)
        is_known = self.padding in (None, *PADDINGS)
        expected = f"one of {', '.join(PADDINGS)}, or null"
        require(is_known, "padding", expected, self.padding)
        is_possible = self.padding != "replicate" or self.resampling == "bilinear"
        require(is_possible, "padding", "zeros with resampling=strided", self.padding)

    def resolved_width(self, image_shape: ImageShape) -> int:
        """Return `width`, or its default for the shape of images or likelihood parameters."""
        if self.width is not None:
            return self.width
        is_large = min(image_shape[1:]) >= LARGE_IMAGE_SIZE and self.resampling == "bilinear"
        return self.LARGE_IMAGE_WIDTH if is_large else DEFAULT_WIDTH

    def full_size_width(self, image_shape: ImageShape) -> int:
        """Return the number of channels of layers at the full image size."""
        width = self.resolved_width(image_shape)
        return max(1, width // 2) if self.resampling == "bilinear" else width


NORMALIZATIONS = ("none", "group")


@dataclass
class ResnetSizes(ConvSizes):
    """Sizes of a network with residual blocks at every image size.

    With bilinear resampling there are none at the full size.
    """

    LARGE_IMAGE_WIDTH: ClassVar[int] = DEFAULT_WIDTH

    num_blocks: int = 1  # residual blocks at each image size, >= 1
    normalization: str = "none"  # norm layers of the residual blocks: none, or group (GroupNorm)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_blocks >= 1, "num_blocks", "at least 1", self.num_blocks)
        is_known = self.normalization in NORMALIZATIONS
        expected = f"one of {', '.join(NORMALIZATIONS)}"
        require(is_known, "normalization", expected, self.normalization)


@dataclass
class MlpSizes(ComponentConfig):
    """Sizes of a fully connected network."""

    # units of each hidden layer, >= 1; [] has no hidden layers
    hidden_dims: list[int] = field(default_factory=lambda: [512, 512])

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "a list of numbers of at least 1"
        require(min(self.hidden_dims, default=1) >= 1, "hidden_dims", expected, self.hidden_dims)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "glu": nn.GLU,  # gated linear unit, h * sigmoid(g): halves the number of units
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
}


@dataclass
class Activation(ComponentConfig):
    """Activation of an encoder with convolutions, or of a discriminator.

    A discriminator can start from the weights of an encoder only if both have the same activation.
    """

    ACTIVATIONS: ClassVar[tuple[str, ...]] = ("silu", "leaky_relu")
    activation: str = "silu"  # activation function: silu, or leaky_relu (slope 0.2)

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = f"one of {', '.join(self.ACTIVATIONS)}"
        require(self.activation in self.ACTIVATIONS, "activation", expected, self.activation)


@dataclass
class MlpActivation(Activation):
    """Activation of a fully connected encoder or decoder."""

    ACTIVATIONS: ClassVar[tuple[str, ...]] = ("silu", "relu", "tanh", "glu")
    activation: str = "silu"  # activation function: silu, relu, tanh, or glu (gated linear unit)


def resolve_width(
    config: T,
    image_shape: ImageShape,
    num_images: int | None = None,
    encoder: Mapping[str, Any] | None = None,
) -> T:
    """Return the config of a network with the default of `width` filled in.

    Args:
        config: Settings of any network.
        image_shape: Shape of the images.
        num_images: Number of training images; None: enough for wide networks.
        encoder: Plain config of the VAE's encoder, whose width is the default of a discriminator
            with the same name and resampling.
    """
    if not isinstance(config, ConvSizes):
        return config
    width = config.resolved_width(image_shape)
    if config.width is None:
        if num_images is not None and num_images < MIN_IMAGES:
            width = DEFAULT_WIDTH
        if encoder is not None and has_same_layers(config, encoder):
            width = encoder["width"]
    return replace(config, width=width)


def resolve_padding(
    config: T, is_natural: bool = False, model: Mapping[str, Any] | None = None
) -> T:
    """Return the config of a network with the default of `padding` filled in.

    Args:
        config: Settings of any network.
        is_natural: True for the decoder of natural images (`ImageSource.IS_NATURAL`).
        model: Plain config of a network whose padding is the default if it has the same name and
            resampling. Earlier versions, which omit the padding, had zeros.
    """
    if not isinstance(config, ConvSizes) or config.padding is not None:
        return config
    padding = "replicate" if is_natural and config.resampling == "bilinear" else "zeros"
    if model is not None and has_same_layers(config, model):
        padding = model.get("padding") or "zeros"
    return replace(config, padding=padding)


def has_same_layers(config: ConvSizes, model: Mapping[str, Any]) -> bool:
    """True if the plain config of a network has the same name and resampling."""
    return all(model.get(key) == getattr(config, key) for key in ("name", "resampling"))
