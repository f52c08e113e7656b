"""Repetition of patterns among generated images."""

import pytest
import torch
from torch.nn.functional import interpolate

from vaegan.images import to_uint8
from vaegan.metrics.pattern_repetition import compute_similarities, pattern_repetition
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.sliced_wasserstein import sliced_wasserstein

NUM_IMAGES = 300


def textures(num, seed):
    """Return different textures of smooth noise in color, (num, 3, 32, 32)."""
    noise = torch.rand(num, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return interpolate(noise, size=32, mode="bicubic", align_corners=False).clamp(0, 1)


def tinted(texture, num, seed):
    """Return copies of a texture (1, 3, 32, 32) in different colors."""
    color = torch.rand(num, 3, 1, 1, generator=torch.Generator().manual_seed(seed))
    return (0.5 * color + 0.5 * texture).clamp(0, 1)


def batch(images):
    return FeatureBatch(torch.zeros(2, 1), images=to_uint8(images))


@pytest.fixture(scope="module")
def real():
    return batch(textures(NUM_IMAGES, 0))


def test_score_of_real_images_is_about_one(real):
    assert pattern_repetition(real, real) == pytest.approx(1)
    assert 0.2 < pattern_repetition(real, batch(textures(NUM_IMAGES, 1))) < 5


def test_a_pattern_that_some_images_share_in_other_colors_is_detected(real):
    """Patches of these images look like those of real ones."""
    other = textures(NUM_IMAGES, 1)
    repeated = torch.cat([other[:-30], tinted(textures(1, 2), 30, 3)])
    baseline, score = (pattern_repetition(real, batch(x)) for x in (other, repeated))
    assert score > 5 * baseline and score > 5
    distances = [sliced_wasserstein(real, batch(x)) for x in (other, repeated)]
    assert distances[1] < 2 * distances[0]


def test_copies_of_one_image_have_the_largest_score(real):
    copies = batch(textures(1, 2).expand(50, -1, -1, -1))
    num_pairs = NUM_IMAGES * (NUM_IMAGES - 1) // 2
    assert pattern_repetition(real, copies) == pytest.approx(num_pairs / round(num_pairs / 1000))


@pytest.mark.parametrize("contrast", [1.0, 0.4])
def test_copies_are_detected_although_some_real_images_are_copies(contrast):
    other = textures(NUM_IMAGES, 0)
    real = batch(torch.cat([other[:-20], textures(1, 1).expand(20, -1, -1, -1)]))
    copy = 0.5 + contrast * (textures(1, 2) - 0.5)
    assert pattern_repetition(real, real) == pytest.approx(1)
    assert pattern_repetition(real, batch(copy.expand(50, -1, -1, -1))) > 100


@pytest.mark.parametrize("size", [16, 32])
def test_noise_is_not_repeated_although_real_images_are_flat(size):
    rng = torch.Generator().manual_seed(0)
    real = batch(torch.rand(500, 3, 1, 1, generator=rng).expand(-1, -1, size, size))
    noise = batch(torch.rand(500, 3, size, size, generator=rng))
    copies = batch(textures(1, 0).expand(500, -1, -1, -1)[..., :size, :size])
    assert pattern_repetition(real, real) == 0
    assert pattern_repetition(real, noise) < 1
    assert 900 < pattern_repetition(real, copies) < 1100


def test_flat_images_have_no_pattern(real):
    color = torch.rand(50, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    flat = batch(color.expand(-1, -1, 32, 32))
    assert compute_similarities(flat).abs().max() < 1e-6
    assert pattern_repetition(real, flat) == 0


@pytest.mark.parametrize("size", [8, 28, 32, (16, 48), 64])
def test_all_sizes_are_scored(size):
    images = [interpolate(textures(40, seed), size=size) for seed in (0, 1)]
    assert 0 <= pattern_repetition(*(batch(x) for x in images)) < 50


def test_large_images_are_averaged():
    small = textures(20, 0)
    large = interpolate(small, scale_factor=3)
    first, second = (compute_similarities(batch(x)) for x in (small, large))
    torch.testing.assert_close(first, second)


def test_two_images_are_enough():
    images = textures(4, 0)
    assert pattern_repetition(batch(images[:2]), batch(images[2:])) in (0, 1)
