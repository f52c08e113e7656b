"""Distances of the distributions of local contrast and of color contrast."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from vaegan.data.shapes import Shapes
from vaegan.images import to_uint8
from vaegan.metrics import local_contrast
from vaegan.metrics.local_contrast import (
    color_contrast_distance,
    local_contrast_distance,
    log_color_contrasts,
    log_contrasts,
)
from vaegan.metrics.sample_scores import SAMPLE_SCORES, FeatureBatch
from vaegan.metrics.sliced_wasserstein import blur


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "color"])
def shapes(request):
    """Return two sets of real images of colored shapes on flat backgrounds, uint8."""
    source = Shapes.Config(channels=request.param, height=32, width=32).build()
    return [source.split(name).images[:200] for name in ("test", "train")]


def distance(real, fake, score=local_contrast_distance):
    features = torch.zeros(2, 1)
    return score(*(FeatureBatch(features, images=x) for x in (real, fake)))


def damaged(name, images):
    x = images / 255
    if name == "noise":
        x = x + 5 / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    elif name == "dots":
        x[..., ::2, ::2] += torch.where(x[..., ::2, ::2] > 0.5, -0.04, 0.04)
    else:
        x = blur(x)
    return to_uint8(x)


def test_contrast_is_the_standard_deviation_of_a_window():
    images = torch.randint(256, (2, 3, 5, 6), dtype=torch.uint8)
    window = images[1, :, 2:5, 1:4].double().flatten(1)
    expected = math.log1p(float(window.var(1, correction=0).mean().sqrt()))
    contrasts = log_contrasts(images)
    assert contrasts.shape == (2, 3, 4)
    assert float(contrasts[1, 2, 1]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("level", [0, 1, 77, 254, 255])
def test_flat_windows_have_no_contrast(level):
    assert not log_contrasts(torch.full((1, 3, 8, 8), level, dtype=torch.uint8)).any()


def test_largest_contrast_and_tiny_images_are_counted():
    stripes = torch.tensor([0, 255, 0, 255], dtype=torch.uint8).expand(1, 1, 4, 4)
    flat = torch.zeros_like(stripes)
    assert distance(stripes, flat) == pytest.approx(math.log1p(120.2), abs=0.01)
    assert distance(stripes[..., :1, :2], flat[..., :1, :2]) == pytest.approx(4.856, abs=0.01)
    assert distance(stripes[..., :1, :1], flat[..., :1, :1]) == 0


def test_result_does_not_depend_on_the_chunks_and_is_computed_once(shapes, monkeypatch):
    batches = [FeatureBatch(torch.zeros(2, 1), images=images) for images in shapes]
    expected = local_contrast_distance(*batches)
    monkeypatch.setattr(local_contrast, "CHUNK_VALUES", 1)
    assert distance(*shapes) == expected
    monkeypatch.setattr(local_contrast, "log_contrasts", None)
    assert local_contrast_distance(*batches) == expected


def test_number_of_pixels_is_limited(shapes, monkeypatch):
    real, other = shapes
    monkeypatch.setattr(local_contrast, "MAX_PIXELS", 50 * 32 * 32)
    assert distance(real, other) == distance(real[:50], other[:50])


def test_distance_is_the_wasserstein_distance_of_the_log_contrasts(shapes):
    real, other = shapes
    noisy = damaged("noise", other)
    expected = wasserstein_distance(log_contrasts(real).flatten(), log_contrasts(noisy).flatten())
    assert distance(real, noisy) == pytest.approx(expected, abs=0.005)
    assert distance(real, noisy) == distance(noisy, real)
    assert distance(real, real) == 0


@pytest.mark.parametrize("name", ["noise", "dots", "blur"])
def test_slight_damage_scores_five_times_the_baseline(shapes, name):
    real, other = shapes
    assert distance(real, damaged(name, other)) > 5 * distance(real, other)


def test_color_contrast_is_that_of_the_differences_from_the_mean_channel():
    images = torch.randint(256, (2, 3, 5, 6), dtype=torch.uint8)
    window = images[1, :, 2:5, 1:4].double()
    colors = (window - window.mean(0)).flatten(1)
    expected = math.log1p(float(colors.var(1, correction=0).mean().sqrt()))
    assert float(log_color_contrasts(images)[1, 2, 1]) == pytest.approx(expected, rel=1e-5)
    assert not log_color_contrasts(images[:, :1].expand(-1, 3, -1, -1)).any()


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 1, 2), (3, 1, 1), (8, 4, 4)])
def test_flat_colors_have_no_contrast(shape):
    color = torch.tensor([255, 0, 77, 254, 1, 3, 99, 200], dtype=torch.uint8)[: shape[0]]
    assert not log_color_contrasts(color.reshape(1, -1, 1, 1).expand(1, *shape)).any()


def test_a_shifted_channel_is_seen_in_the_color_contrast():
    source = Shapes.Config(channels=3, height=32, width=32).build()
    real, other = (source.split(name).images[:200] for name in ("test", "train"))
    shifted = other.clone()
    shifted[:, 0] = other[:, 0].roll(1, -1)
    baseline = distance(real, other, color_contrast_distance)
    assert distance(real, shifted, color_contrast_distance) > 5 * baseline
    assert distance(real, real, color_contrast_distance) == 0


def test_color_contrast_is_skipped_for_gray_images():
    score = SAMPLE_SCORES["color_contrast_distance"]
    for num_channels, is_defined in ((1, False), (3, True)):
        images = torch.zeros(2, num_channels, 8, 8, dtype=torch.uint8)
        batch = FeatureBatch(torch.zeros(2, 1), images=images)
        assert score.is_defined(batch, batch) is is_defined
    assert not score.is_defined(batch, FeatureBatch(torch.zeros(2, 1)))
