"""Search the training images for copies among generated images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vaegan.config import require
from vaegan.metrics.sample_scores import check_pair, iterate_distances

NUM_SEARCHED = 1000  # largest number of generated and of held-out images that are compared
HELD_OUT_SHARE = 0.05  # fraction of the held-out images within the distance that counts as a copy


class Memorization(NamedTuple):
    """Nearest training images of generated images, in feature space."""

    fraction: float  # fraction of generated images within the distance that counts as a copy
    real_fraction: float  # the same for held-out images: the real-data baseline
    nearest: Tensor  # index of the nearest training image of each generated image, (N,)
    distances: Tensor  # Euclidean distance to it, in feature units, (N,)


def find_memorized(fake: Tensor, held_out: Tensor, train: Tensor) -> Memorization:
    """Return the fraction of generated images that are unusually close to a training image.

    A generated image counts if its distance to the nearest training image is no larger than that
    of the closest 5% of held-out images, which the model cannot have copied. Every second held-out
    image defines this distance, and the others give the baseline, about 0.05. A generator that does
    not copy has about this fraction or, if its images are poor, less.

    Args:
        fake: Features of generated images, (N, D).
        held_out: Features of real images that the model was not trained on, (M, D), M >= 2.
        train: Features of training images, (T, D), T >= 2.
    """
    require(len(held_out) >= 2, "the number of held-out images", "at least 2", len(held_out))
    distances, nearest = find_nearest(fake, train)
    held_out_distances, _ = find_nearest(held_out, train)
    limit = held_out_distances[::2].quantile(HELD_OUT_SHARE)
    return Memorization(
        fraction=float((distances <= limit).double().mean()),
        real_fraction=float((held_out_distances[1::2] <= limit).double().mean()),
        nearest=nearest,
        distances=distances,
    )


def find_nearest(features: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance of each row of features to the nearest row of train, and its index.

    Features are (N, D), train is (T, D); both results are (N,).
    """
    train, features = check_pair(train, features)
    parts = [distances.min(1) for _, distances in iterate_distances(features, train)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])
