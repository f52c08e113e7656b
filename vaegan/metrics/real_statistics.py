"""Real images as the feature network sees them: what generated ones are compared with, and the score of real images.

The baseline is the score of real training images in the place of generated ones: what no generator can be expected to
beat. What a fixed network makes of a set of images is kept on disk under a hash of both, in
$XDG_CACHE_HOME/vaegan/features (~/.cache/vaegan/features).
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vaegan.data.dataset import ArrayLike
from vaegan.images import to_float
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.scores import FeatureBatch, radii, scores
from vaegan.runtime.paths import cache_home

log = logging.getLogger(__name__)
BATCH = 500  # images that go through the network at once


class RealStatistics(NamedTuple):
    """A set of real images, and how other real images score against it."""

    real: FeatureBatch
    radii: Tensor  # of the real images' neighborhoods, (N,), in feature units
    real_vs_real: dict[str, float]  # by score


def real_statistics(
    network: FeatureExtractor, images: ArrayLike, others: ArrayLike, device: torch.device
) -> RealStatistics:
    """Reference of real images; the baseline is that of as many `others`, or all there are."""
    num = min(len(images), len(others))
    real = with_classes(network, cached_features(network, images, len(images), device))
    other = with_classes(network, cached_features(network, others, num, device))
    real_radii = radii(real.features)
    return RealStatistics(real, real_radii, scores(real, other, real_radii=real_radii))


@torch.no_grad()
def with_classes(network: FeatureExtractor, features: Tensor) -> FeatureBatch:
    """Features (N, D) and what the network makes of them."""
    return FeatureBatch(features, network.classify(features))


def cached_features(
    network: FeatureExtractor, images: ArrayLike, num: int, device: torch.device
) -> Tensor:
    """Features (num, D) of the first images, on the device: from the disk if they are there."""
    network.to(device)
    if not network.IS_FIXED:
        return all_features(network, images, num, device)
    path = cache_folder() / f"{content_hash(network, images, num)}.safetensors"
    try:
        return load_file(path, device=str(device))["features"]
    except (OSError, SafetensorError, KeyError):  # none there, or a damaged one
        features = all_features(network, images, num, device)
    save_atomically({"features": features}, path)
    return features


@torch.no_grad()
def all_features(
    network: FeatureExtractor, images: ArrayLike, num: int, device: torch.device
) -> Tensor:
    """Features (num, D) of the first images, in batches, on the device."""
    return torch.cat([network(to_float(part.to(device))) for part in parts(images, num)])


def parts(images: ArrayLike, num: int) -> Iterator[Tensor]:
    """The first images, uint8 (at most BATCH, C, H, W) at a time."""
    return (images[start : min(start + BATCH, num)] for start in range(0, num, BATCH))


def content_hash(network: FeatureExtractor, images: ArrayLike, num: int) -> str:
    """Of all pixels of the first images, all weights, and the name of the network."""
    digest = hashlib.blake2b(type(network).__name__.encode(), digest_size=16)
    pixels = (("images", part) for part in parts(images, num))
    for name, tensor in itertools.chain(pixels, sorted(network.state_dict().items())):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where features are kept from one run to the next."""
    return cache_home() / "features"


def save_atomically(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file that is whole or not there; that it cannot be written is no reason to stop."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        log.warning(
            "features of real images cannot be kept in %s (%s): the next run computes them again",
            path,
            error,
        )
        with suppress(OSError):
            part.unlink()
