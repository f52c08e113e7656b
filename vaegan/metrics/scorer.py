"""Collect generated images over batches and devices, and score them against real ones."""

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
    """Scores generated images against the real images of a split.

    It is no part of the LightningModule that uses it: its network is in no checkpoint.

    Args:
        network: Feature extractor.
        data: Real images; those of train give the real-data baseline.
        splits: Splits to score against.

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
            keys = f"dataset.{split}_fraction or dataset.num_{split}"
            key = f"the number of images in the {split} split (which {keys} sets)"
            check_num_images(len(data.splits[split]), network.num_features, key)

    def start(self, split: SplitName, device: torch.device) -> None:
        """Start to collect images that are compared with a split."""
        self.real_statistics(split, device)
        self.split = split
        self.collected = CatMetric(nan_strategy="disable").to(device)

    def real_statistics(self, split: SplitName, device: torch.device) -> RealStatistics:
        """Return the statistics of a split's real images, computed once."""
        if split not in self.real_statistics_by_split:
            real = self.data.splits[split].images
            others = self.data.splits["train"].images
            statistics = compute_real_statistics(self.network, real, others, device)
            self.real_statistics_by_split[split] = statistics
        return self.real_statistics_by_split[split]

    def update(self, images: Tensor) -> None:
        """Add generated images, (B, C, H, W), in [0, 1]."""
        with torch.autocast(images.device.type, enabled=False):  # as for the real images
            self.collected.update(self.network(images.float()))

    def compute(self) -> dict[str, float]:
        """Return every score of the collected images of all devices; keep it in `figures` too."""
        features = self.collected.compute()
        self.collected.reset()
        real = self.real_statistics_by_split[self.split].real
        self.figures = compute_scores(real, classify(self.network, features))
        return self.figures
