"""Scores of generated images, collected over batches and devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import CatMetric

from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import SplitName
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.real_statistics import RealStatistics, real_statistics, with_classes
from vaegan.metrics.scores import check_enough, scores


class Scorer:
    """Compares as many generated images with a split as it has real ones.

    The network is no part of the LightningModule that uses it: it is in no checkpoint.

    Args:
        network: Makes the features.
        data: Has the real images; those of train give the real-data baseline.

    Raises:
        ValueError: A split has too few images for the network's number of features.
    """

    def __init__(
        self, network: FeatureExtractor, data: ImageDataModule, splits: tuple[SplitName, ...]
    ) -> None:
        self.network, self.data = network, data
        self.real_statistics_by_split: dict[SplitName, RealStatistics] = {}
        for split in splits:
            keys = f"dataset.{split}_fraction or dataset.num_{split}"
            key = f"the number of images in the {split} split (which {keys} sets)"
            check_enough(len(data.splits[split]), network.num_features, key)

    def start(self, split: SplitName, device: torch.device) -> None:
        """Begin to collect what is compared with a split."""
        self.real_statistics(split, device)
        self.split = split
        self.collected = CatMetric(nan_strategy="disable").to(device)

    def real_statistics(self, split: SplitName, device: torch.device) -> RealStatistics:
        """What is known of the real images of a split."""
        if split not in self.real_statistics_by_split:
            real, other = self.data.splits[split].images, self.data.splits["train"].images
            self.real_statistics_by_split[split] = real_statistics(
                self.network, real, other, device
            )
        return self.real_statistics_by_split[split]

    def update(self, images: Tensor) -> None:
        """Add generated images, (B, C, H, W), in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False):  # as the real ones
            self.collected.update(self.network(images.float()))

    def compute(self) -> dict[str, float]:
        """Every score of the collected images, on all devices alike; kept in `figures` too."""
        features = self.collected.compute()
        self.collected.reset()
        real, real_radii, _ = self.real_statistics_by_split[self.split]
        self.figures = scores(real, with_classes(self.network, features), real_radii=real_radii)
        return self.figures
