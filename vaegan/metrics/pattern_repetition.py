"""Frequency of pairs of fake images with the same pattern, relative to real images.

It is computed from pixels, without a trained network. A generator can give many images the same
pattern with another tint or on another background. Scores that compare distributions of features or
of small patches hardly change then: each image has an acceptable texture, and the images differ in
color. Pairs of images with nearly the same pattern show it.

Arora and Zhang 2017, arXiv:1706.08224, compare generated images with each other to find duplicates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vaegan.images import to_float
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import FeatureBatch, sample_score
from vaegan.metrics.sliced_wasserstein import blur

MAX_SIZE = 32  # pixels; larger images are averaged to this height or width
NUM_BLURS = 3  # passes of the binomial filter; tone and shading, which remain, are subtracted
MIN_CONTRAST = 6 / 255  # standard deviation below which patterns count less and less
PAIR_FRACTION = 1e-3  # fraction of the pairs of real images that have the same pattern
# Limits of the similarity from which on two patterns are the same. If real images are flat, noise
# must not count; the similarity of independent noise has a standard deviation of 1 / sqrt(pixels).
# If some real images are copies of each other, fakes with less contrast must count.
MIN_STDS, MAX_THRESHOLD = 4.0, 0.6
CHUNK_IMAGES = 128  # images in memory as floating-point numbers at a time


@sample_score(METRICS["pattern_repetition"], needs_images=True)
def pattern_repetition(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return the frequency of fake pairs with the same pattern, divided by that of real pairs.

    Two images have the same pattern if they are at least as similar as the most similar thousandth
    of the pairs of real images. The score of other real images is about 1, the largest about 1,000
    (less if more pairs of real images have the same pattern, or if there are few real images).
    """
    similarities = real.cached(compute_similarities)
    num_same = max(1, round(PAIR_FRACTION * len(similarities)))
    min_threshold = MIN_STDS / math.sqrt(math.prod(pattern_size(real.pixels())))
    threshold = similarities.topk(num_same).values[-1].clamp(min_threshold, MAX_THRESHOLD)
    num_real = max(num_same, int((similarities >= threshold).count_nonzero()))
    is_same = fake.cached(compute_similarities) >= threshold
    return int(is_same.count_nonzero()) / len(is_same) * len(similarities) / num_real


def compute_similarities(batch: FeatureBatch) -> Tensor:
    """Return the similarity of each pair of images, in [-1, 1], (N (N - 1) / 2,).

    It is the cosine similarity of their patterns, which is reduced if a pattern has little
    contrast, so that flat images are not similar.
    """
    chunks = batch.pixels().split(CHUNK_IMAGES)
    patterns = torch.cat([extract_patterns(chunk) for chunk in chunks])
    num_pixels = patterns.shape[1]
    energy = patterns.square().sum(1, keepdim=True)
    patterns = patterns / (energy + num_pixels * MIN_CONTRAST**2).sqrt()
    rows, columns = torch.triu_indices(len(patterns), len(patterns), 1, device=patterns.device)
    return (patterns @ patterns.T)[rows, columns]


def pattern_size(images: Tensor) -> tuple[int, int]:
    """Return height and width of the patterns of images (N, C, H, W)."""
    height, width = images.shape[-2:]
    return min(MAX_SIZE, height), min(MAX_SIZE, width)


def extract_patterns(images: Tensor) -> Tensor:
    """Return gray versions of uint8 images (N, C, H, W) minus blurred copies, (N, D)."""
    gray = to_float(images).mean(1, keepdim=True)
    gray = adaptive_avg_pool2d(gray, pattern_size(images))
    blurred = gray
    for _ in range(NUM_BLURS):
        blurred = blur(blurred)
    return (gray - blurred).flatten(1)
