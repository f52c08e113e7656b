"""Distances between the distributions of local contrast in real and fake images.

They are computed from pixels, without a trained network. Images with large flat areas, such as
icons and digits, look damaged as soon as these areas are slightly noisy. Scores that compare means
and covariances of features, or projections of whole patches, hardly change then, because the edges
have far more contrast than the noise. The logarithm of the contrast shows it.

The same holds for colored fringes, such as those of channels that do not match: the contrast of the
colors alone shows them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import FeatureBatch, sample_score

WINDOW_SIZE = 3  # pixels
MAX_LOG_CONTRAST = math.log(128)  # > log(1 + c) of 3 x 3 pixels
NUM_BINS = 1_000
MAX_PIXELS = 2**24  # pixels per set of images: 1,024 images of 128 x 128
CHUNK_VALUES = 2**21  # pixel values that are processed at a time


@sample_score(METRICS["local_contrast_distance"], needs_images=True)
def local_contrast_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the Wasserstein-1 distance of the log contrasts of small windows, >= 0.

    The contrast c of a window of 3 x 3 pixels is the root mean square over channels of its standard
    deviation, in gray levels of 255. The compared value is log(1 + c): ratios count, and contrasts
    below one level count as none. A distance of 0.1 thus means that contrasts well above one level
    differ by about 10%.
    """
    difference = real.cached(compute_contrast_cdf) - fake.cached(compute_contrast_cdf)
    return MAX_LOG_CONTRAST / NUM_BINS * float(difference.abs().sum())


@sample_score(METRICS["color_contrast_distance"], needs_images=True, needs_colors=True)
def color_contrast_distance(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return `local_contrast_distance` of the colors alone, >= 0.

    The color of a pixel is the difference of each channel from the mean over channels. Images of
    gray pixels have no color contrast.
    """
    difference = real.cached(compute_color_cdf) - fake.cached(compute_color_cdf)
    return MAX_LOG_CONTRAST / NUM_BINS * float(difference.abs().sum())


def compute_contrast_cdf(batch: FeatureBatch) -> Tensor:
    """Return `log_contrast_cdf` of the pixels of a batch."""
    return log_contrast_cdf(batch.pixels(), log_contrasts)


def compute_color_cdf(batch: FeatureBatch) -> Tensor:
    """Return `log_contrast_cdf` of the colors of a batch."""
    return log_contrast_cdf(batch.pixels(), log_color_contrasts)


def log_contrast_cdf(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the distribution function of the log contrasts of all windows, (NUM_BINS,).

    Args:
        images: uint8, (N, C, H, W); the first `MAX_PIXELS` pixels are used.
        function: `log_contrasts` or `log_color_contrasts`.
    """
    images = images[: max(1, MAX_PIXELS // math.prod(images.shape[-2:]))]
    counts = torch.zeros(NUM_BINS, dtype=torch.long, device=images.device)
    for chunk in images.split(max(1, CHUNK_VALUES // math.prod(images.shape[1:]))):
        bins = (function(chunk) * (NUM_BINS / MAX_LOG_CONTRAST)).long()
        counts += bins.clamp(max=NUM_BINS - 1).flatten().bincount(minlength=NUM_BINS)
    cdf = counts.cpu().double().cumsum(0)
    return cdf / cdf[-1]


def log_contrasts(images: Tensor) -> Tensor:
    """Return log(1 + c) of each window of uint8 images (N, C, H, W).

    The shape is (N, H - 2, W - 2); a dimension of less than 3 pixels has one window.
    """
    return window_variances(images.float()).mean(1).sqrt().log1p()


def log_color_contrasts(images: Tensor) -> Tensor:
    """Return `log_contrasts` of each channel's difference from the mean over C channels.

    The mean over channels of its variance is the sum of the variances of x_i - x_j over all pairs
    of channels, divided by C^2. These differences are integers.
    """
    channels = images.float().unbind(1)
    pairs = itertools.combinations(channels, 2)
    variance = sum(window_variances((a - b).unsqueeze(1)).squeeze(1) for a, b in pairs)
    return (torch.as_tensor(variance).sqrt() / len(channels)).log1p()


def window_variances(levels: Tensor) -> Tensor:
    """Return the variance of each channel in each window of 3 x 3 pixels.

    Flat windows have exactly 0, since sums of levels and of their squares are integers below 2^24.

    Args:
        levels: Integers in [-255, 255] as float32, (N, C, H, W).
    """
    size = [min(WINDOW_SIZE, length) for length in levels.shape[-2:]]
    num_pixels = math.prod(size)
    sums = F.avg_pool2d(levels, size, stride=1, divisor_override=1).round()
    squares = F.avg_pool2d(levels.square(), size, stride=1, divisor_override=1).round()
    return (num_pixels * squares - sums.square()) / num_pixels**2
