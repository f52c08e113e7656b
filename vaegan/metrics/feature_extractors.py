"""Feature extractors: frozen networks that define the feature space of the scores.

    digits_cnn    small classifier and pixel statistics of MNIST-like images; comparable across runs
    inception     InceptionV3 of the FID literature, for natural images
    pyramid       local colors and edge strengths at several scales, without weights
    vae_encoder   encoder of the GAN's VAE, for any data set; comparable only for the same VAE

To add a feature extractor, define a subclass here or in an imported file.
"""

from __future__ import annotations

import abc
import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from vaegan.config import Component, ComponentConfig
from vaegan.images import to_uint8
from vaegan.metrics.digits_cnn import DigitsCnn, load_digits_cnn
from vaegan.runtime.downloads import downloading_weights
from vaegan.vae.model import VAE


class FeatureExtractor(Component, nn.Module, abc.ABC, group="feature_extractor"):
    """Frozen network, always in eval mode, that maps images to features.

    Attributes:
        IS_FIXED: True if the network is the same in every run; its features are cached on disk.
        num_features: Number of features D.
    """

    IS_FIXED: ClassVar[bool] = True
    num_features: int

    @dataclass
    class Config(ComponentConfig):
        """Settings of a feature extractor; `build(vae, classifier)` constructs it."""

        def build(self, vae: VAE, classifier: str | None) -> FeatureExtractor:
            """Build the frozen network.

            Args:
                vae: VAE that the GAN starts from.
                classifier: Name of the digits_cnn weights for the data set's classes; None if no
                    weights match.

            Raises:
                ValueError: The network does not support the data, or its weights are unavailable.
            """
            network: FeatureExtractor = self.component(self, vae, classifier)
            return network.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """Name of the component in the config."""
        return self.Config.name

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, num_features) of images in [0, 1], (B, C, H, W)."""

    def classify(self, features: Tensor) -> Tensor | None:
        """Return class logits (B, K) of features (B, num_features); None without a classifier."""
        return None

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Ignore `mode` and stay in eval mode."""
        super().train(False)
        return self


class DigitsCnnExtractor(FeatureExtractor):
    """Features of digits_cnn, (B, 100 C), computed for each of the C channels and concatenated.

    The classes are the combinations of the classes of the channels: 10 for C = 1, 1,000 for C = 3.
    """

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "digits_cnn"
        path: str | None = None  # weights file (.safetensors); null: the shipped weights

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        self.channels, *size = vae.image_shape
        if classifier is None or size != [28, 28]:
            raise ValueError(
                "feature_extractor=digits_cnn supports only mnist, stacked_mnist and fashion_mnist "
                f"at 28 x 28 pixels; got another data set or size (image shape {vae.image_shape}). "
                "Choose feature_extractor=pyramid or feature_extractor=inception"
            )
        self.net = load_digits_cnn(classifier, to_path(config.path))
        self.num_features = self.channels * DigitsCnn.NUM_FEATURES

    def forward(self, images: Tensor) -> Tensor:
        digits = images.reshape(-1, 1, *images.shape[2:])
        return self.net.features(digits).reshape(len(images), -1)

    def classify(self, features: Tensor) -> Tensor:
        """Return joint log-probabilities (B, 10^C) of the classes of all channels."""
        digits = features.reshape(-1, DigitsCnn.NUM_FEATURES)
        log_probs = self.net.classify(digits).log_softmax(-1)
        log_probs = log_probs.reshape(len(features), self.channels, -1)
        joint = log_probs[:, 0]
        for channel in range(1, self.channels):
            joint = (joint.unsqueeze(2) + log_probs[:, channel].unsqueeze(1)).flatten(1)
        return joint


class InceptionExtractor(FeatureExtractor):
    """Features (B, 2048) of InceptionV3 with the weights of the original FID, from torch-fidelity.

    Source: Heusel et al. 2017, arXiv:1706.08500.
    """

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "inception"
        path: str | None = None  # torch-fidelity's weights file (.pth); null: download

    num_features = 2048

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (
                URL_INCEPTION_V3,
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise ValueError(
                "feature_extractor=inception requires torch-fidelity. Install it with: "
                "uv sync --extra inception, or pip install '.[inception]'"
            ) from error
        remedy = (
            f"download {URL_INCEPTION_V3} and set feature_extractor.path to it, or choose "
            "feature_extractor=pyramid"
        )
        path = to_path(config.path)
        if path is not None:
            read_weights_file(path, remedy)  # torch-fidelity would unpickle any object
        with downloading_weights("feature_extractor=inception", remedy):
            try:
                self.net = FeatureExtractorInceptionV3(
                    "inception-v3-compat", ["2048"], None if path is None else str(path)
                )
            except RuntimeError as error:
                if path is None:
                    raise
                raise ValueError(
                    f"feature_extractor.path={path} must contain the weights of InceptionV3; "
                    f"{remedy}"
                ) from error

    def forward(self, images: Tensor) -> Tensor:
        return self.net(to_color(images))[0]

    def classify(self, features: Tensor) -> Tensor:
        """Return logits (B, 1008) without bias, as in the original Inception score."""
        return features @ self.net.fc.weight.T


class PyramidExtractor(FeatureExtractor):
    """Local means of color and of edge strength at several scales, without trained weights.

    On a 4 x 4 grid: the mean of each channel, and for each level of a Laplacian pyramid with at
    least 16 pixels the mean over channels of the absolute values. These features capture colors,
    layout, blur, noise and grids, but not the content of an image.
    """

    GRID = 4  # cells per side
    MIN_SIZE = 16  # pixels, smallest height or width of a level
    # subtracted from colors: the kernel distance depends on the origin, and far from it mostly
    # compares the mean color
    MIDDLE_GRAY = 0.5
    SCALES = (10.0, 40.0)  # factors of colors and edges; edges vary about a quarter as much

    constants: Tensor

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "pyramid"

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        channels, height, width = vae.image_shape
        ratio = min(height, width) // self.MIN_SIZE
        self.num_levels = ratio.bit_length()  # 1 at 16 to 31 pixels, 2 at 32 to 63, ...
        self.num_features = self.GRID**2 * (channels + self.num_levels)
        constants = torch.tensor([self.MIDDLE_GRAY, *self.SCALES])
        self.register_buffer("constants", constants)  # a buffer is part of the cache key

    def forward(self, images: Tensor) -> Tensor:
        x = images.float()
        middle, color_scale, edge_scale = self.constants
        features = [color_scale * adaptive_avg_pool2d(x - middle, self.GRID)]
        for _ in range(self.num_levels):
            smaller = avg_pool2d(x, 2)
            blurred = interpolate(smaller, size=x.shape[2:], mode="bilinear", align_corners=False)
            edges = (x - blurred).abs().mean(1, keepdim=True)
            features.append(edge_scale * adaptive_avg_pool2d(edges, self.GRID))
            x = smaller
        return torch.cat(features, 1).flatten(1)


class VaeEncoderExtractor(FeatureExtractor):
    """Output of the VAE's encoder, (B, num_features), without classes.

    Images are not binarized for any likelihood, because binarization would hide the sharpness of
    strokes, which the GAN changes.
    """

    IS_FIXED: ClassVar[bool] = False

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "vae_encoder"

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        self.net = copy.deepcopy(vae.encoder)
        self.num_features = vae.posterior.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).float()


def to_path(text: str | None) -> Path | None:
    """Convert text to a path with `~` expanded; None if the text is None or empty."""
    return Path(text).expanduser() if text else None


def to_color(images: Tensor) -> Tensor:
    """Convert images in [0, 1], (B, C, H, W), to uint8 with three channels, (B, 3, H, W)."""
    pixels = to_uint8(images)
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


def read_weights_file(path: Path, remedy: str) -> dict[str, Tensor]:
    """Return the tensors of a weights file, on the CPU, without executing anything in it.

    Raises:
        ValueError: The file is missing, damaged, or contains anything but a dict of tensors.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"feature_extractor.path={path} does not exist; {remedy}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"feature_extractor.path={path} is damaged or contains objects other than tensors; "
            f"{remedy}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"feature_extractor.path={path} must contain a dict of tensors; {remedy}")
    return content


def build_feature_extractor(
    config: FeatureExtractor.Config | None, vae: VAE, classifier: str | None
) -> FeatureExtractor:
    """Build a feature extractor.

    Args:
        config: Config of the feature extractor; None: digits_cnn if `classifier` is given, else
            pyramid for images of at least 16 pixels, else vae_encoder.
        vae: VAE that the GAN starts from.
        classifier: Name of the digits_cnn weights for the data set's classes, or None.

    Raises:
        ValueError: The network does not support the data, or its weights are unavailable.
    """
    default: type[FeatureExtractor.Config] = VaeEncoderExtractor.Config
    if classifier:
        default = DigitsCnnExtractor.Config
    elif min(vae.image_shape[1:]) >= PyramidExtractor.MIN_SIZE:
        default = PyramidExtractor.Config
    return (config or default()).build(vae, classifier)
