"""Feature networks: what a generated image is looked at with, before its set is compared with real ones.

    digits_cnn    a small classifier of MNIST-type images, trained here; distances are comparable between all runs
    inception     InceptionV3 of the FID literature, for natural images
    vae_encoder   the encoder of the VAE that the GAN started from: for any data set, comparable within one VAE

To add one, write a class here.
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
    """Images in [0, 1], (B, C, H, W), to features (B, num_features); frozen, always in eval mode."""

    IS_FIXED: ClassVar[bool] = (
        True  # the same network in every run: what it makes of real images is kept on disk
    )

    @dataclass
    class Config(ComponentConfig):
        def build(self, vae: VAE, classifier: str | None) -> FeatureExtractor:
            """`classifier` names the weights of digits_cnn that know the data set's classes; None: there are none.

            Raises:
                ValueError: The network does not suit the data, or its weights cannot be had.
            """
            built: FeatureExtractor = self.component(self, vae, classifier)
            return built.requires_grad_(False).eval()

    @property
    def name(self) -> str:
        """What the config calls it."""
        return self.Config.name

    @property
    @abc.abstractmethod
    def num_features(self) -> int:
        """Dimensions of the features."""

    @abc.abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Features (B, num_features) of images (B, C, H, W) in [0, 1]."""

    @abc.abstractmethod
    def classify(self, features: Tensor) -> Tensor | None:
        """Class logits (B, K) of features (B, num_features); None where the network knows no classes."""

    def train(self, mode: bool = True) -> FeatureExtractor:
        super().train(False)
        return self


class DigitsCnnExtractor(FeatureExtractor):
    """Of three channels each is a digit: their features side by side, their classes combined to one of a thousand."""

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "digits_cnn"
        path: str | None = (
            None  # file of weights (.safetensors); null: those that come with the project
        )

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        self.channels, *size = vae.image_shape
        if classifier is None or size != [28, 28]:
            raise ValueError(
                "feature_extractor=digits_cnn knows the classes of mnist, stacked_mnist and fashion_mnist at 28 x 28 pixels, "
                f"and not these images of shape {vae.image_shape}; choose feature_extractor=vae_encoder or feature_extractor=inception"
            )
        self.net = load_digits_cnn(
            classifier, Path(config.path).expanduser() if config.path else None
        )

    @property
    def num_features(self) -> int:
        return self.channels * DigitsCnn.NUM_FEATURES

    def forward(self, images: Tensor) -> Tensor:
        digits = images.reshape(-1, 1, *images.shape[2:])
        return self.net.features(digits).reshape(len(images), -1)

    def classify(self, features: Tensor) -> Tensor:
        digits = features.reshape(-1, DigitsCnn.NUM_FEATURES)
        log_probs = (
            self.net.classifier(digits).log_softmax(-1).reshape(len(features), self.channels, -1)
        )
        joint = log_probs[:, 0]
        for channel in range(1, self.channels):
            joint = (joint.unsqueeze(2) + log_probs[:, channel].unsqueeze(1)).flatten(1)
        assert isinstance(joint, Tensor)
        return joint


class InceptionExtractor(FeatureExtractor):
    """The 2048 features of InceptionV3 as the original FID computes them, by torch-fidelity.

    Source: Heusel et al. 2017, arXiv:1706.08500.
    """

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "inception"
        path: str | None = None  # file of torch-fidelity's weights (.pth); null: download them

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
        way_out = f"download {URL_INCEPTION_V3} and set feature_extractor.path to it, or choose feature_extractor=vae_encoder"
        path = Path(config.path).expanduser() if config.path else None
        if path is not None:
            check_is_plain(path, way_out)
        try:
            self.net = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], str(path) if path else None
            )
        except OSError as error:
            raise ValueError(
                f"feature_extractor=inception: its weights cannot be downloaded ({error}); {way_out}"
            ) from error
        except RuntimeError as error:
            raise ValueError(
                f"feature_extractor.path={path} does not hold the weights of InceptionV3; {way_out}"
            ) from error

    @property
    def num_features(self) -> int:
        return 2048

    def forward(self, images: Tensor) -> Tensor:
        pixels = to_uint8(images)
        features: Tensor
        (features,) = self.net(pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels)
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Without the bias, as the Inception score has it."""
        logits: Tensor = features @ self.net.fc.weight.T
        return logits


class VaeEncoderExtractor(FeatureExtractor):
    """The output of the VAE's encoder; it has no classes.

    Images go in as they are, binarized for no likelihood: whether a stroke is crisp or blurred is what a GAN changes.
    """

    IS_FIXED: ClassVar[bool] = False

    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "vae_encoder"

    def __init__(self, config: Config, vae: VAE, classifier: str | None) -> None:
        super().__init__()
        self.net = copy.deepcopy(vae.encoder)
        self._num_features = vae.posterior.num_features

    @property
    def num_features(self) -> int:
        return self._num_features

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.net(images)
        return features.float()

    def classify(self, features: Tensor) -> None:
        return None


def check_is_plain(path: Path, way_out: str) -> None:
    """That a file of weights holds tensors and nothing else: the library that reads it would execute the rest.

    Raises:
        ValueError: It is missing, damaged, or holds more.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"feature_extractor.path={path} does not exist; {way_out}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(
            f"feature_extractor.path={path} is damaged, or holds more than tensors: refused; {way_out}"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(
            f"feature_extractor.path={path} does not hold the weights of a network; {way_out}"
        )


def build_feature_extractor(
    config: FeatureExtractor.Config | None, vae: VAE, classifier: str | None
) -> FeatureExtractor:
    """The network of a config; of None the classifier that knows the data set's classes, else the VAE's own encoder.

    Raises:
        ValueError: The network does not suit the data, or its weights cannot be had.
    """
    default = DigitsCnnExtractor.Config if classifier else VaeEncoderExtractor.Config
    return (config or default()).build(vae, classifier)
