"""Stacked MNIST: three digits as channels of a color image, a test of coverage of 1,000 modes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName
from vaegan.data.images.scanning import SkippedFile
from vaegan.data.mnist import Mnist
from vaegan.images import ImageShape
from vaegan.runtime.seeding import make_generator


class StackedMnist(ImageSource):
    """Random triples (a, b, c) of MNIST digits as red, green and blue; class 100 a + 10 b + c.

    The triples of a split are drawn, with replacement, from the same split of `dataset=mnist`, so
    no digit of the official test set is used in training. Source: Metz et al. 2017,
    arXiv:1611.02163, section 3.3.1; number of images for scoring: Srivastava et al. 2017,
    arXiv:1705.07761.
    """

    CLASSIFIER: ClassVar[str | None] = "mnist"
    LIKELIHOOD: ClassVar[str] = "gaussian"
    LICENSE = Mnist.LICENSE
    image_shape: ImageShape = (3, 28, 28)

    @dataclass
    class Config(ImageSource.Config):
        name: str = "stacked_mnist"
        root: str | None = None  # folder of the four MNIST files; null: the embedded files
        num_train: int = 60_000  # training images, >= 1
        num_val: int = 5_000  # validation images, >= 2
        num_test: int = 26_000  # test images, >= 1; 26,000 are about 26 per class
        data_seed: int = 0  # random seed of the triples

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_train >= 1, "num_train", "at least 1", self.num_train)
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)
            require(self.num_test >= 1, "num_test", "at least 1", self.num_test)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.digits = Mnist.Config(root=config.root).build()

    def prepare(self) -> Sequence[SkippedFile]:
        return self.digits.prepare()

    def split(self, name: SplitName) -> Split:
        images, labels, _ = self.digits.split(name)
        num = getattr(self.config, f"num_{name}")
        rng = make_generator("stacked_mnist", self.config.data_seed, name)
        triples = torch.randint(len(images), (num, 3), generator=rng)
        return Split(images[triples].squeeze(2), labels[triples] @ torch.tensor([100, 10, 1]))
