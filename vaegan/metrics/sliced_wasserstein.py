"""Sliced Wasserstein distance of image patches in a Laplacian pyramid.

It is computed from pixels, without a trained network, and compares the distributions of small
patches in each frequency band. It therefore detects wrong textures and artifacts, such as a dot
grid, that features of a network can miss. It does not measure the composition of an image.

Source: Karras et al. 2018, arXiv:1710.10196, section 5, with fewer patches and projections.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vaegan.config import require
from vaegan.images import to_float
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import FeatureBatch, sample_score
from vaegan.runtime.seeding import make_generator

PATCH_SIZE = 7  # pixels
MIN_LEVEL_SIZE = 14  # pixels, smallest height or width of a level made by halving
NUM_PATCHES = 8_192  # patches per level and set of images
NUM_PROJECTIONS = 128  # random directions
SCALE = 1000.0  # factor in the reported distance, as in the source
CHUNK_IMAGES = 128  # images whose pyramid is in memory at a time
MIN_STD = 1e-6  # smallest standard deviation that the patches are divided by


@sample_score(METRICS["sliced_wasserstein"], needs_images=True)
def sliced_wasserstein(real: FeatureBatch, fake: FeatureBatch) -> float:
    """Return 1000 times the sliced Wasserstein distance of patches at the worst level, >= 0.

    In each set and level, the patches are normalized to mean 0 and standard deviation 1 per
    channel, as in the source: the distance measures patterns, not the contrast of a band. The
    level with the largest distance counts, because a mean over levels hides a defect of one band.
    """
    shape, fake_shape = real.pixels().shape[1:], fake.pixels().shape[1:]
    expected = f"of shape {tuple(shape)}, like the real images"
    require(fake_shape == shape, "fake images", expected, tuple(fake_shape))
    pairs = zip(real.cached(compute_projections), fake.cached(compute_projections), strict=True)
    distances = [(x - y).abs().mean() for x, y in pairs]
    return SCALE * float(torch.stack(distances).max())


def compute_projections(batch: FeatureBatch) -> list[Tensor]:
    """Return `sorted_projections` of the patches of each level."""
    return [sorted_projections(patches) for patches in extract_patches(batch.pixels())]


def sorted_projections(points: Tensor) -> Tensor:
    """Return the projections of points (N, D) on fixed random lines, sorted, (NUM_PROJECTIONS, N).

    The mean absolute difference of two results is the mean Wasserstein-1 distance over the lines.
    """
    rng = make_generator("sliced_wasserstein", "directions")
    directions = torch.randn(points.shape[1], NUM_PROJECTIONS, generator=rng).to(points.device)
    directions = directions / directions.norm(dim=0)
    projections = (points @ directions).T
    if points.device.type == "cpu":  # NumPy sorts 15 times as fast as PyTorch
        return torch.from_numpy(np.sort(projections.numpy(), axis=1))
    return projections.sort(dim=1).values


def extract_patches(images: Tensor) -> list[Tensor]:
    """Return normalized patches at fixed random positions for each level, (NUM_PATCHES, D).

    Args:
        images: uint8, (N, C, H, W).

    Returns:
        One tensor per level, from fine to coarse. D = C * 7 * 7, or less for smaller images.
    """
    rng = make_generator("sliced_wasserstein", "positions")
    positions = torch.rand(NUM_PATCHES, 2, generator=rng).to(images.device)
    # patch i is cut from image i mod N
    image_indices = torch.arange(NUM_PATCHES, device=images.device) % len(images)
    chunks: list[list[Tensor]] = []
    for start in range(0, len(images), CHUNK_IMAGES):
        chunk = to_float(images[start : start + CHUNK_IMAGES])
        is_in_chunk = (start <= image_indices) & (image_indices < start + len(chunk))
        chunk_patches = (image_indices[is_in_chunk] - start, positions[is_in_chunk])
        chunks.append([cut_patches(level, *chunk_patches) for level in iterate_levels(chunk)])
    return [normalize(torch.cat(parts)).flatten(1) for parts in zip(*chunks, strict=True)]


def iterate_levels(images: Tensor) -> Iterator[Tensor]:
    """Yield the levels of the Laplacian pyramid of images (N, C, H, W), from fine to coarse.

    A level is the difference between the image and its blurred half-size version; the last level is
    the smallest image itself. Sizes are halved down to 16 pixels (14 for 28 x 28 images).
    """
    while (min(images.shape[-2:]) + 1) // 2 >= MIN_LEVEL_SIZE:
        halved = downsample(images)
        yield images - upsample(halved, images.shape[-2:])
        images = halved
    yield images


def downsample(images: Tensor) -> Tensor:
    """Blur images (N, C, H, W) with the binomial 5 x 5 filter and keep every second pixel."""
    return blur(images)[..., ::2, ::2]


def upsample(images: Tensor, size: torch.Size) -> Tensor:
    """Double images (N, C, h, w) to a size: insert zeros between the pixels and blur."""
    spread = images.new_zeros(*images.shape[:2], *size)
    spread[..., ::2, ::2] = images
    return 4 * blur(spread)


def blur(images: Tensor) -> Tensor:
    """Convolve images (N, C, H, W) with the binomial 5 x 5 filter, mirrored at the edges."""
    weights = images.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    planes = F.pad(images.flatten(0, 1).unsqueeze(1), (2, 2, 2, 2), mode="reflect")
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, 1, 5)), weights.view(1, 1, 5, 1))
    return planes.view(images.shape)


def cut_patches(level: Tensor, image_indices: Tensor, positions: Tensor) -> Tensor:
    """Cut a patch from each given image, (P, C, 7, 7); smaller if the images are smaller.

    Args:
        level: (N, C, H, W).
        image_indices: Image of each patch, (P,).
        positions: Vertical and horizontal position of each patch, in [0, 1), (P, 2).
    """
    height, width = (min(PATCH_SIZE, size) for size in level.shape[-2:])
    windows = level.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, rows, columns, 7, 7)
    num_positions = torch.tensor(windows.shape[2:4], device=level.device)
    row, column = (positions * num_positions).long().unbind(1)
    return windows[image_indices, :, row, column]


def normalize(patches: Tensor) -> Tensor:
    """Return patches (P, C, h, w) with mean 0 and standard deviation 1 per channel."""
    std, mean = torch.std_mean(patches, dim=(0, 2, 3), keepdim=True, correction=0)
    return (patches - mean) / std.clamp_min(MIN_STD)
