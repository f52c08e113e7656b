"""Feature extractors: frozen networks in whose feature space generated images are scored.

    digits_cnn    small classifier of MNIST-type images; scores are comparable between all runs
    inception     InceptionV3 of the FID literature, for natural images
    vae_encoder   encoder of the GAN's VAE: for any data set, comparable within one VAE

To add one, write a class here or in an imported file.
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

from vaegan.config import Component, ComponentConfig
from vaegan.images import to_uint8
from vaegan.metrics.digits_cnn import DigitsCnn, load_digits_cnn
from vaegan.vae.model import VAE


class FeatureExtractor(Component, nn.Module, abc.ABC, group="feature_extractor"):
    """Maps images (B, C, H, W) in [0, 1] to features (B, num_features).

    It is frozen and always in eval mode.
    """

    IS_FIXED: ClassVar[bool] = True  # the same in every run, so that features are cached on disk
    num_features: int

    @dataclass
    class Config(ComponentConfig):
        def build(self, vae: VAE, classifier: str | None) -> FeatureExtractor:
            """Build the frozen network.

            Args:
                vae: VAE that the GAN starts from.
                classifier: Weights of digits_cnn that know the data set's classes, if there are.

            Raises:
                ValueError: The network does not suit the data, or its weights are unavailable.
            """
            network: FeatureExtractor = self.component(self, vae, classifier)
            return network.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """Name in the config."""
        return self.Config.name

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, num_features) of images (B, C, H, W) in [0, 1]."""

    def classify(self, features: Tensor) -> Tensor | None:
        """Return class logits (B, K) of features (B, num_features); None if it knows no classes."""
        return None

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stay in eval mode."""
        super().train(False)
        return self


class DigitsCnnExtractor(FeatureExtractor):
    """Features of digits_cnn, of each channel if there are three.

    The features of three channels are concatenated, and their classes combined to one of 1,000.
    """

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "digits_cnn"
        path: str | None = None  # file of weights (.safetensors); null: the shipped ones

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        self.channels, *size = vae.image_shape
        if classifier is None or size != [28, 28]:
            raise ValueError(
                "feature_extractor=digits_cnn knows the classes of mnist, stacked_mnist and "
                "fashion_mnist at 28 x 28 pixels, and not these images of shape "
                f"{vae.image_shape}; choose feature_extractor=vae_encoder or "
                "feature_extractor=inception"
            )
        self.net = load_digits_cnn(classifier, to_path(config.path))
        self.num_features = self.channels * DigitsCnn.NUM_FEATURES

    def forward(self, images: Tensor) -> Tensor:
        digits = images.reshape(-1, 1, *images.shape[2:])
        return self.net.features(digits).reshape(len(images), -1)

    def classify(self, features: Tensor) -> Tensor:
        digits = features.reshape(-1, DigitsCnn.NUM_FEATURES)
        log_probs = self.net.classifier(digits).log_softmax(-1)
        log_probs = log_probs.reshape(len(features), self.channels, -1)
        joint = log_probs[:, 0]
        for channel in range(1, self.channels):
            joint = (joint.unsqueeze(2) + log_probs[:, channel].unsqueeze(1)).flatten(1)
        return joint


class InceptionExtractor(FeatureExtractor):
    """The features of InceptionV3 as the original FID computes them, by torch-fidelity.

    Source: Heusel et al. 2017, arXiv:1706.08500.
    """

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "inception"
        path: str | None = None  # file of torch-fidelity's weights (.pth); null: download them

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
                "feature_extractor=inception needs torch-fidelity: pip install 'vaegan[inception]'"
            ) from error
        remedy = (
            f"download {URL_INCEPTION_V3} and set feature_extractor.path to it, or choose "
            "feature_extractor=vae_encoder"
        )
        path = to_path(config.path)
        if path is not None:
            check_weights_file(path, remedy)
        try:
            self.net = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], None if path is None else str(path)
            )
        except OSError as error:
            raise ValueError(
                f"feature_extractor=inception: cannot download its weights ({error}); {remedy}"
            ) from error
        except RuntimeError as error:
            raise ValueError(
                f"feature_extractor.path={path} does not hold the weights of InceptionV3; {remedy}"
            ) from error

    def forward(self, images: Tensor) -> Tensor:
        pixels = to_uint8(images)
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        return self.net(pixels)[0]

    def classify(self, features: Tensor) -> Tensor:
        """Return logits without the bias, as the Inception score is defined."""
        return features @ self.net.fc.weight.T


class VaeEncoderExtractor(FeatureExtractor):
    """Output of the VAE's encoder; it has no classes.

    Images are not binarized, whatever the likelihood: a GAN changes the sharpness of strokes.
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
    """Return the path that a config gives, if it gives one."""
    return Path(text).expanduser() if text else None


def check_weights_file(path: Path, remedy: str) -> None:
    """Check that a file holds tensors and nothing else, which torch-fidelity would execute.

    Raises:
        ValueError: It is missing, damaged, or holds more.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"feature_extractor.path={path} does not exist; {remedy}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"feature_extractor.path={path} is damaged, or holds more than tensors: refused; "
            f"{remedy}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"feature_extractor.path={path} does not hold the weights of a network; {remedy}"
        )


def build_feature_extractor(
    config: FeatureExtractor.Config | None, vae: VAE, classifier: str | None
) -> FeatureExtractor:
    """Build the feature extractor of a config.

    Without a config it is digits_cnn if that knows the data set's classes, else vae_encoder.

    Raises:
        ValueError: The network does not suit the data, or its weights are unavailable.
    """
    default = DigitsCnnExtractor.Config if classifier else VaeEncoderExtractor.Config
    return (config or default()).build(vae, classifier)
