"""Collect generated images over batches and devices, and score them against real images."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import CatMetric

from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import SplitName
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.real_statistics import RealStatistics, classify, compute_real_statistics
from vaegan.metrics.scores import check_num_images, compute_scores


class Scorer:
    """Score generated images against the real images of a split.

    It is not an nn.Module, so that checkpoints do not contain the feature extractor.

    Args:
        network: Feature extractor.
        data: Real images; the train split provides the real-data baseline.
        splits: Splits to score against.

    Attributes:
        scores: Result of the last `compute()`, by metric name.

    Raises:
        ValueError: A split has too few images for the network's number of features.
    """

    def __init__(
        self, network: FeatureExtractor, data: ImageDataModule, splits: tuple[SplitName, ...]
    ) -> None:
        self.network = network
        self.data = data
        self.real_statistics_by_split: dict[SplitName, RealStatistics] = {}
        for split in splits:
            key = f"the number of images in the {split} split{size_setting(data, split)}"
            check_num_images(len(data.splits[split]), network.num_features, key)

    def start(self, split: SplitName, device: torch.device) -> None:
        """Discard collected images and start to collect images for the comparison with a split."""
        self.real_statistics(split, device)
        self.split = split
        self.collected = CatMetric(nan_strategy="disable").to(device)

    def real_statistics(self, split: SplitName, device: torch.device) -> RealStatistics:
        """Return the statistics of a split's real images; they are computed once."""
        if split not in self.real_statistics_by_split:
            real = self.data.splits[split].images
            other_real = self.data.splits["train"].images
            statistics = compute_real_statistics(self.network, real, other_real, device)
            self.real_statistics_by_split[split] = statistics
        return self.real_statistics_by_split[split]

    def update(self, images: Tensor) -> None:
        """Add generated images in [0, 1], (B, C, H, W)."""
        with torch.autocast(images.device.type, enabled=False):  # as for real images
            self.collected.update(self.network(images.float()))

    def compute(self) -> dict[str, float]:
        """Compute all scores of the images collected on all devices; also set `scores`."""
        features = self.collected.compute()
        self.collected.reset()
        real = self.real_statistics_by_split[self.split].real
        self.scores = compute_scores(real, classify(self.network, features))
        return self.scores


def size_setting(data: ImageDataModule, split: SplitName) -> str:
    """Return the setting for the size of a split, for a message; '' if the data set has none."""
    keys = [f"{split}_fraction", f"num_{split}"]
    known = [key for key in keys if hasattr(data.source.config, key)]
    return f" (set by dataset.{known[0]})" if known else ""
