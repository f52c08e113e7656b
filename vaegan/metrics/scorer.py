"""Collect generated images over batches and devices, and score them against real images."""

from __future__ import annotations

import logging

import torch
from torch import Tensor
from torchmetrics import Metric as TorchMetric
from torchmetrics.utilities import dim_zero_cat

from vaegan.config import require
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import SplitName
from vaegan.images import to_uint8
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.real_statistics import RealStatistics, classify, compute_real_statistics
from vaegan.metrics.sample_scores import (
    MAX_PIXEL_IMAGES,
    can_estimate_covariance,
    covariance_scores,
)
from vaegan.metrics.scores import compute_scores
from vaegan.runtime.collectives import is_rank_zero

log = logging.getLogger(__name__)
# Fewest images per feature for the Frechet distance as monitor: with fewer, its noise is larger
# than the differences between good checkpoints.
MIN_IMAGES_PER_FEATURE = 10


class SampleCollector(TorchMetric):
    """Features and pixels of generated images on all devices, in the order of their indices."""

    indices: list[Tensor]
    features: list[Tensor]
    images: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("indices", "features", "images"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, indices: Tensor, features: Tensor, images: Tensor) -> None:
        """Add images in [0, 1], (B, C, H, W), with their features (B, D) and indices (B,)."""
        self.indices.append(indices)
        self.features.append(features)
        self.images.append(to_uint8(images[indices < MAX_PIXEL_IMAGES]))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return all features (N, D), and the first images, uint8, (n, C, H, W)."""
        indices = dim_zero_cat(self.indices)
        order = indices.argsort()
        image_order = indices[indices < MAX_PIXEL_IMAGES].argsort()
        return dim_zero_cat(self.features)[order], dim_zero_cat(self.images)[image_order]


class Scorer:
    """Score generated images against the real images of a split.

    It is not an nn.Module, so that checkpoints do not contain the feature extractor.

    Args:
        network: Feature extractor.
        data: Real images; the train split provides the real-data baseline.
        splits: Splits to score against; the size of the first one determines the monitor.

    Attributes:
        monitor: Name of the metric that selects the best checkpoint and is reported first:
            frechet_distance; combined_distance if the first split has fewer than ten images per
            feature; kernel_distance if it has no more images than features.
        scores: Result of the last `compute()`, by metric name, the monitor first.
        fake: Generated images of the last `compute()`, in the order of their indices.

    Raises:
        ValueError: A split has fewer than 2 images.
    """

    def __init__(
        self, network: FeatureExtractor, data: ImageDataModule, splits: tuple[SplitName, ...]
    ) -> None:
        self.network = network
        self.data = data
        self.real_statistics_by_split: dict[SplitName, RealStatistics] = {}
        for split in splits:
            num_images = len(data.splits[split])
            key = f"the number of images in the {split} split"
            require(num_images >= 2, key, "at least 2", num_images)
        self.splits = splits
        self.monitor = choose_monitor(len(data.splits[splits[0]]), network.num_features)

    def log_small_splits(self) -> None:
        """Log how splits with few images per feature change the scores, if there are any."""
        sizes = {split: len(self.data.splits[split]) for split in self.splits}
        too_small = [
            split
            for split, size in sizes.items()
            if not can_estimate_covariance(size, self.network.num_features)
        ]
        if self.monitor == "frechet_distance" and not too_small:
            return
        counts = " and ".join(f"{size} {split} images" for split, size in sizes.items())
        message = f"only {counts} for the {self.network.num_features} features of "
        message += self.network.name
        if self.monitor != "frechet_distance":
            text = METRICS[self.monitor].description.rstrip(".")
            message += f": {self.monitor} ({text[0].lower()}{text[1:]}) selects the best checkpoint"
        if too_small:
            where = " and ".join(too_small)
            message += f"; {' and '.join(covariance_scores())} are left out on {where}"
        if is_rank_zero():
            log.info("%s", message)

    def start(self, split: SplitName, device: torch.device) -> None:
        """Discard collected images and start to collect images for the comparison with a split."""
        self.real_statistics(split, device)
        self.split = split
        self.collector = SampleCollector().to(device)

    def real_statistics(self, split: SplitName, device: torch.device) -> RealStatistics:
        """Return the statistics of a split's real images; they are computed once."""
        if split not in self.real_statistics_by_split:
            real = self.data.splits[split].images
            other_real = self.data.splits["train"].images
            statistics = compute_real_statistics(self.network, real, other_real, device)
            self.real_statistics_by_split[split] = statistics
        return self.real_statistics_by_split[split]

    def update(self, images: Tensor, indices: Tensor) -> None:
        """Add generated images in [0, 1], (B, C, H, W), and their indices, (B,)."""
        with torch.autocast(images.device.type, enabled=False):  # as for real images
            images = images.float()
            self.collector.update(indices.to(images.device), self.network(images), images)

    def compute(self) -> dict[str, float]:
        """Compute all scores of the images collected on all devices; also set `scores`."""
        features, images = self.collector.compute()
        self.collector.reset()
        self.fake = classify(self.network, features, images)
        real = self.real_statistics_by_split[self.split].real
        scores = compute_scores(real, self.fake)
        order = sorted(scores, key=lambda name: name != self.monitor)  # stable
        self.scores = {name: scores[name] for name in order}
        return self.scores


def choose_monitor(num_images: int, num_features: int) -> str:
    """Return the metric that selects the best checkpoint of a GAN."""
    if not can_estimate_covariance(num_images, num_features):
        return "kernel_distance"
    is_large = num_images >= MIN_IMAGES_PER_FEATURE * num_features
    return "frechet_distance" if is_large else "combined_distance"
