"""Sliced Wasserstein distance of patches in a Laplacian pyramid."""

import pytest
import torch
from scipy.ndimage import convolve
from scipy.stats import wasserstein_distance
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from vaegan.data.shapes import Shapes
from vaegan.images import to_uint8
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.sliced_wasserstein import (
    downsample,
    extract_patches,
    iterate_levels,
    sliced_wasserstein,
    sorted_projections,
    upsample,
)


def shapes(split, num_images=200, **config):
    return Shapes.Config(**config).build().split(split).images[:num_images]


def distance(real, fake):
    return sliced_wasserstein(*(FeatureBatch(torch.zeros(2, 1), images=x) for x in (real, fake)))


def add_dots(images, period, amplitude=0.1):
    """Make every period-th pixel in both directions darker, or brighter on dark ground."""
    images = images.clone()
    dots = images[..., ::period, ::period]
    dots += torch.where(dots > 0.5, -amplitude, amplitude)
    return images


@pytest.mark.parametrize("sigma", [0.7, 1.5])
def test_dot_grid_scores_worse_than_clean_blurry_images(sigma):
    config = {"channels": 3, "height": 64, "width": 64}
    real, other = (shapes(name, 100, **config) for name in ("test", "train"))
    blurry = gaussian_blur(other / 255, [13, 13], [sigma, sigma])
    clean = distance(real, to_uint8(blurry))
    for period in (2, 4):
        assert distance(real, to_uint8(add_dots(blurry, period))) > 3 * clean


def test_blurry_images_score_worse_than_real_images():
    real, other = shapes("test"), shapes("train")
    blurry = to_uint8(gaussian_blur(other / 255, [7, 7], [1.0, 1.0]))
    assert distance(real, blurry) > 2 * distance(real, other)


def test_equal_sets_have_distance_zero_and_other_real_images_a_small_one():
    real, other = shapes("test"), shapes("train")
    assert distance(real, real) == 0
    noise = torch.randint(256, real.shape, dtype=torch.uint8)
    assert 0 < 10 * distance(real, other) < distance(real, noise)


def test_distance_is_deterministic_and_leaves_global_generators_alone():
    real, other = shapes("test"), shapes("train")
    state = torch.get_rng_state()
    first = distance(real, other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert distance(real, other) == first


@pytest.mark.parametrize(
    "size, sizes",
    [
        ((64, 64), [64, 32, 16]),
        ((32, 32), [32, 16]),
        ((28, 28), [28, 14]),
        ((33, 48), [33, 17]),
        ((16, 16), [16]),
        ((5, 9), [5]),
    ],
)
def test_levels_are_halved_and_sum_to_the_image(size, sizes):
    images = torch.rand(2, 3, *size)
    levels = list(iterate_levels(images))
    assert [level.shape[-2] for level in levels] == sizes
    rebuilt = levels[-1]
    for level in levels[-2::-1]:
        rebuilt = level + upsample(rebuilt, level.shape[-2:])
    torch.testing.assert_close(rebuilt, images)


def test_downsampling_matches_scipy():
    images = torch.rand(1, 1, 12, 10)
    weights = torch.tensor([1.0, 4, 6, 4, 1]) / 16
    expected = convolve(images[0, 0].numpy(), torch.outer(weights, weights).numpy(), mode="mirror")
    torch.testing.assert_close(downsample(images)[0, 0], torch.from_numpy(expected[::2, ::2]))


def test_projected_distance_matches_scipy():
    x, y = torch.randn(500, 1), 2 * torch.randn(500, 1) + 1
    expected = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())  # all directions are +1 or -1
    distance = (sorted_projections(x) - sorted_projections(y)).abs().mean()
    assert float(distance) == pytest.approx(expected, rel=1e-4)


def test_patches_are_normalized_per_channel():
    images = shapes("test", channels=3)
    images[:, 1] = images[:, 1] // 4
    for patches in extract_patches(images):
        channels = patches.view(len(patches), 3, -1)
        torch.testing.assert_close(channels.mean((0, 2)), torch.zeros(3), atol=1e-4, rtol=0)
        torch.testing.assert_close(channels.std((0, 2)), torch.ones(3), atol=1e-3, rtol=0)


def test_constant_images_have_a_finite_distance():
    blank = torch.full((10, 1, 28, 28), 200, dtype=torch.uint8)
    assert 0 < distance(shapes("test"), blank) < 10_000


def test_images_of_another_shape_are_rejected():
    real = shapes("test")
    with pytest.raises(ValueError, match=r"fake images must be of shape \(1, 28, 28\)"):
        distance(real, F.pad(real, (2, 2, 2, 2)))
