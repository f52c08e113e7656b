"""Distance between real and fake images in the contrast near the border.

Generators of photographs tend to draw a frame: lines along the border of the image. The sliced
Wasserstein distance, which pools patches from all positions, hardly detects them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import FeatureBatch, sample_score

BORDER_DIVISOR = 8  # the border is 1/8 of the smaller side wide
CHUNK_IMAGES = 64  # images that are processed at a time


@sample_score(METRICS["border_contrast_distance"], needs_images=True)
def border_contrast_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the mean absolute difference of the two border profiles, >= 0.

    A value of 0.2 means that the contrast in the border differs on average by 20% of the contrast
    farther in. Images whose smaller side is below 8 pixels have no border and score 0.
    """
    difference = real.cached(border_profile) - fake.cached(border_profile)
    return float(difference.abs().mean())


def border_profile(batch: FeatureBatch) -> Tensor:
    """Return the contrast at each distance from the sides, divided by the contrast farther in.

    Returns:
        Ratios from the sides inward, (smaller side // 8,), at least (1,), float64.
    """
    images = batch.pixels()
    smaller = min(images.shape[-2:])
    if smaller < BORDER_DIVISOR:
        return torch.zeros(1, dtype=torch.float64)
    chunks = images.split(CHUNK_IMAGES)
    sums = [len(chunk) * contrast_by_distance(chunk) for chunk in chunks]
    contrasts = torch.stack(sums).sum(0) / len(images)
    width = smaller // BORDER_DIVISOR
    inside = contrasts[width : smaller // 2].mean().clamp(min=1e-3)
    return contrasts[:width] / inside


def contrast_by_distance(images: Tensor) -> Tensor:
    """Return the mean absolute difference of neighboring pixels, by distance from a side.

    For each of the four sides, the two pixels of a pair are at distances d and d + 1 from that
    side, within its middle half; d starts at 0.

    Args:
        images: uint8, (N, C, H, W).

    Returns:
        Means over images, channels, pixels and sides, in gray levels, (min(H, W) // 2,), float64,
        on the CPU.
    """
    levels = images.float()
    transposed = levels.transpose(2, 3)
    sides = [levels, levels.flip(2), transposed, transposed.flip(2)]
    num_distances = min(images.shape[-2:]) // 2
    contrasts = []
    for side in sides:  # the side is the first row
        length = side.shape[3]
        middle = side[:, :, : num_distances + 1, length // 4 : length - length // 4]
        contrasts.append(middle.diff(dim=2).abs().mean((0, 1, 3)))
    return torch.stack(contrasts).mean(0).double().cpu()
