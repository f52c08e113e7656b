"""Features of 28 x 28 gray images for scores: a small classifier, and pixel statistics per cell.

    penultimate  64  hidden layer of the classifier: shape and class
    intensity    16  mean intensity in each cell of a 4 x 4 grid: position and intensity
    edges        16  mean gradient norm in each cell of the grid: texture and noise
    sharpness     4  largest squared gradient in each quadrant: blur, contrast and stray pixels

The classifier is trained to ignore shifts and is insensitive to intensity, so on its own it would
score real digits that are shifted or darkened as nearly perfect. The pixel statistics detect both,
but do not distinguish classes. docs/metrics.md has the measurements.

The features need about 1/1000 of the compute of InceptionV3. The scores are comparable only with
each other, not with published FIDs.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, channels_last, nn
from torch.nn import functional as F

WEIGHTS_DIR = Path(__file__).parent / "weights"
DATASETS = ("mnist", "fashion_mnist")  # data sets with shipped weights
GRID = 4  # cells per side for the pixel statistics; a cell has 7 x 7 pixels


class FeatureGroup(NamedTuple):
    """Features that share one scale."""

    size: int  # number of features
    variance: float  # total variance of the scaled features over the training images


# In the order of the features. The total variance of all 100 features is 100.
FEATURE_GROUPS = {
    "penultimate": FeatureGroup(64, 40.0),
    "intensity": FeatureGroup(GRID**2, 20.0),
    "edges": FeatureGroup(GRID**2, 20.0),
    "sharpness": FeatureGroup(4, 20.0),
}


def pixel_statistics(images: Tensor) -> Tensor:
    """Return intensity, edges and sharpness, (B, 36), of images in [0, 1], (B, 1, 28, 28)."""
    padded = F.pad(images, (1, 0, 1, 0))
    dx = padded[..., 1:, 1:] - padded[..., 1:, :-1]
    dy = padded[..., 1:, 1:] - padded[..., :-1, 1:]
    squared_gradient = dx.square() + dy.square()
    intensity = F.adaptive_avg_pool2d(images, GRID)
    edges = F.adaptive_avg_pool2d(squared_gradient.sqrt(), GRID)
    sharpness = F.adaptive_max_pool2d(squared_gradient, 2)
    return torch.cat([intensity.flatten(1), edges.flatten(1), sharpness.flatten(1)], dim=1)


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution, batch norm and ReLU; the image size is divided by `stride`."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class DigitsCnn(nn.Module):
    """Classifier with six convolutions (28 -> 14 -> 7 pixels), a hidden layer and a linear layer.

    It has 172,986 parameters. The batch norm before the ReLU of the hidden layer prevents dead
    units and gives the 64 hidden features similar scales.

    Attributes:
        scales: Factors of the features, (NUM_FEATURES,), equal within each of FEATURE_GROUPS. With
            a separate factor for each feature, cells that are almost always black would dominate.
    """

    NUM_HIDDEN: ClassVar[int] = FEATURE_GROUPS["penultimate"].size
    NUM_FEATURES: ClassVar[int] = sum(group.size for group in FEATURE_GROUPS.values())
    NUM_CLASSES: ClassVar[int] = 10
    scales: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv_block(1, 16),
            conv_block(16, 32, stride=2),
            conv_block(32, 32),
            conv_block(32, 64, stride=2),
            conv_block(64, 64),
            conv_block(64, 64),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.MaxPool2d(2, ceil_mode=True),
                flatten=nn.Flatten(),
                linear=nn.Linear(64 * 4 * 4, self.NUM_HIDDEN, bias=False),
                norm=nn.BatchNorm1d(self.NUM_HIDDEN),
                relu=nn.ReLU(),
            )
        )
        self.classifier = nn.Linear(self.NUM_HIDDEN, self.NUM_CLASSES)
        self.register_buffer("scales", torch.ones(self.NUM_FEATURES))
        self.to(memory_format=channels_last)  # about 1.4 times as fast on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits (B, 10) of images in [0, 1], (B, 1, 28, 28)."""
        return self.classifier(self.penultimate(images))

    def penultimate(self, images: Tensor) -> Tensor:
        """Return the activations of the hidden layer, (B, 64), >= 0.

        Raises:
            ValueError: The images do not have shape (B, 1, 28, 28).
        """
        if images.shape[1:] != (1, 28, 28):
            raise ValueError(
                f"DigitsCnn expects images of shape (B, 1, 28, 28); got {tuple(images.shape)}"
            )
        images = images.contiguous(memory_format=channels_last)
        return self.head(self.convolutions(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the scaled features of all groups, (B, 100), of images in [0, 1]."""
        groups = [self.penultimate(images), pixel_statistics(images)]
        return torch.cat(groups, dim=1) * self.scales

    def classify(self, features: Tensor) -> Tensor:
        """Return class logits (B, 10) of scaled features (B, 100)."""
        hidden = features[:, : self.NUM_HIDDEN] / self.scales[: self.NUM_HIDDEN]
        return self.classifier(hidden)


def load_digits_cnn(name: str, path: Path | None = None) -> DigitsCnn:
    """Return the trained classifier of a data set, frozen and in eval mode.

    Args:
        name: "mnist" or "fashion_mnist".
        path: Weights file (.safetensors); None: the shipped file of the data set.

    Raises:
        ValueError: The name is unknown, or the file is missing, damaged or of another network.
    """
    if name not in DATASETS:
        raise ValueError(f"DigitsCnn has weights for {' and '.join(DATASETS)}; got {name!r}")
    path = path or WEIGHTS_DIR / f"{name}.safetensors"
    # The initialization must not advance the global generator of a run.
    with torch.random.fork_rng(devices=[]):
        net = DigitsCnn()
    try:
        net.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} must contain the weights of a DigitsCnn; loading failed: {error}. Restore the "
            "file (git checkout vaegan/metrics/weights) or retrain the network (python "
            f"scripts/train_digits_cnn.py {name})"
        ) from error
    return net.eval().requires_grad_(False)
