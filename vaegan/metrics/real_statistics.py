"""Features of real images, cached on disk, and the real-data baseline.

The baseline is the score of real images against other real images; a generator is not expected to
be better. Features of a fixed network are cached in $XDG_CACHE_HOME/vaegan/features (default:
~/.cache/vaegan/features) under a hash of network and images.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vaegan.data.dataset import ArrayLike
from vaegan.images import to_float
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.sample_scores import MAX_PIXEL_IMAGES, FeatureBatch
from vaegan.metrics.scores import compute_scores
from vaegan.runtime.atomic_files import atomic_write
from vaegan.runtime.paths import cache_home
from vaegan.runtime.signals import raise_if_late

log = logging.getLogger(__name__)
BATCH_SIZE = 500  # images per forward pass of the network


class RealStatistics(NamedTuple):
    """Real images that generated images are compared with."""

    real: FeatureBatch
    real_vs_real: dict[str, float]  # real-data baseline: scores of other real images, by metric


def compute_real_statistics(
    network: FeatureExtractor, images: ArrayLike, other_images: ArrayLike, device: torch.device
) -> RealStatistics:
    """Return features of real images and the scores of other real images against them.

    Args:
        network: Feature extractor; it is moved to the device.
        images: Real images, uint8, (N, C, H, W).
        other_images: Real images of the baseline, uint8, (M, C, H, W); the first min(N, M) are
            scored.
        device: Device of the computation.
    """
    num_others = min(len(images), len(other_images))
    batches = []
    for pixels, num_images in ((images, len(images)), (other_images, num_others)):
        features = load_features(network, pixels, num_images, device)
        first_pixels = pixels[: min(num_images, MAX_PIXEL_IMAGES)].to(device)
        batches.append(classify(network, features, first_pixels))
    real, other = batches
    return RealStatistics(real, compute_scores(real, other))


@torch.no_grad()
def classify(
    network: FeatureExtractor, features: Tensor, images: Tensor | None = None
) -> FeatureBatch:
    """Return features (N, D) and pixels with the class logits predicted from the features."""
    return FeatureBatch(features, network.classify(features), images)


def load_features(
    network: FeatureExtractor, images: ArrayLike, num_images: int, device: torch.device
) -> Tensor:
    """Return features (num_images, D) of the first images, cached if the network is fixed."""
    network.to(device)
    if not network.IS_FIXED:
        return compute_features(network, images, num_images, device)
    file_name = f"{content_hash(network, images, num_images)}.safetensors"
    path = cache_home() / "features" / file_name
    try:
        return load_file(path, device=str(device))["features"]
    except (OSError, SafetensorError, KeyError):  # missing or damaged
        features = compute_features(network, images, num_images, device)
    save_features(features, path)
    return features


@torch.no_grad()
def compute_features(
    network: FeatureExtractor, images: ArrayLike, num_images: int, device: torch.device
) -> Tensor:
    """Compute features (num_images, D) of the first images in batches on the device."""
    batches = iterate_batches(images, num_images)
    return torch.cat([network(to_float(batch.to(device))) for batch in batches])


def iterate_batches(images: ArrayLike, num_images: int) -> Iterator[Tensor]:
    """Yield the first images in uint8 batches of at most BATCH_SIZE, (B, C, H, W)."""
    for start in range(0, num_images, BATCH_SIZE):
        raise_if_late()
        yield images[start : min(start + BATCH_SIZE, num_images)]


def content_hash(network: FeatureExtractor, images: ArrayLike, num_images: int) -> str:
    """Return a hash of the pixels of the first images and of the network's class and weights."""
    digest = hashlib.blake2b(type(network).__name__.encode(), digest_size=16)
    pixels = (("images", batch) for batch in iterate_batches(images, num_images))
    for name, tensor in itertools.chain(pixels, sorted(network.state_dict().items())):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_features(features: Tensor, path: Path) -> None:
    """Write features to the cache; log a warning if writing fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(save({"features": features.cpu().contiguous()}))
    except (OSError, SafetensorError) as error:
        message = "cannot cache features of real images in %s (%s); the next run recomputes them"
        log.warning(message, path, error)
