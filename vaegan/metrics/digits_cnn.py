"""Small classifier of 28 x 28 gray images; its penultimate features are a feature space for scores.

Features tuned to a data set distinguish a sharp digit from a smudge, which features of photographs
do not, and they cost a thousandth of Inception's. Scores in this space are comparable with each
other only, not with published FIDs.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, channels_last, nn

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("mnist", "fashion_mnist")


def conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Return 3 x 3 convolution, batch norm and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU())


class DigitsCnn(nn.Module):
    """Six convolutions (28 -> 14 -> 7 pixels), a feature layer and a linear classifier.

    It has 172,986 parameters. The batch norm before the features' ReLU keeps each of the 64 units
    alive and of similar size.
    """

    NUM_FEATURES: ClassVar[int] = 64
    NUM_CLASSES: ClassVar[int] = 10

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            conv(1, 16),
            conv(16, 32, stride=2),
            conv(32, 32),
            conv(32, 64, stride=2),
            conv(64, 64),
            conv(64, 64),
        )
        self.head = nn.Sequential(
            OrderedDict(
                pool=nn.MaxPool2d(2, ceil_mode=True),
                flatten=nn.Flatten(),
                linear=nn.Linear(64 * 4 * 4, self.NUM_FEATURES, bias=False),
                norm=nn.BatchNorm1d(self.NUM_FEATURES),
                relu=nn.ReLU(),
            )
        )
        self.classifier = nn.Linear(self.NUM_FEATURES, self.NUM_CLASSES)
        self.to(memory_format=channels_last)  # about 1.4 times as fast on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits (B, 10) of images (B, 1, 28, 28) in [0, 1]."""
        return self.classifier(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate activations, (B, 64), >= 0, of images (B, 1, 28, 28) in [0, 1].

        Raises:
            ValueError: The images have another shape.
        """
        if images.shape[1:] != (1, 28, 28):
            raise ValueError(
                f"DigitsCnn expects images of shape (B, 1, 28, 28); got {tuple(images.shape)}"
            )
        images = images.contiguous(memory_format=channels_last)
        return self.head(self.convolutions(images))


def load_digits_cnn(name: str, path: Path | None = None) -> DigitsCnn:
    """Return the trained classifier of a data set, frozen, in eval mode.

    Args:
        name: "mnist" or "fashion_mnist".
        path: File of weights; None: the shipped one.

    Raises:
        ValueError: The name is unknown, or the file is missing, damaged, or holds other weights.
    """
    if name not in NAMES:
        raise ValueError(f"a DigitsCnn has weights for {' and '.join(NAMES)}; got {name!r}")
    path = path or WEIGHTS / f"{name}.safetensors"
    with torch.random.fork_rng(devices=[]):  # its initialization must not advance a run's generator
        net = DigitsCnn()
    try:
        net.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{path} must hold the weights of a DigitsCnn; got: {error}. Restore the file (git "
            "checkout vaegan/metrics/weights) or train it again (python "
            f"scripts/train_digits_cnn.py {name})"
        ) from error
    return net.eval().requires_grad_(False)
