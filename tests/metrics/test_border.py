"""Distance of the contrasts near the border."""

import pytest
import torch

from benchmarks.metric_sensitivity import add_frame
from vaegan.data.dataset import ImageSource
from vaegan.data.shapes import Shapes
from vaegan.images import to_float, to_uint8
from vaegan.metrics import border
from vaegan.metrics.border import border_contrast_distance, border_profile, contrast_by_distance
from vaegan.metrics.sample_scores import SAMPLE_SCORES, FeatureBatch
from vaegan.metrics.sliced_wasserstein import blur


def batch(images):
    return FeatureBatch(torch.zeros(2, 1), images=images)


@pytest.fixture(scope="module", params=["digits", "textures", "shapes"])
def images(request):
    """Return two sets of real images, in [0, 1]: empty, textured and flat near the border."""
    if request.param == "digits":
        source = ImageSource.choices["mnist"].Config().build()
        return [to_float(source.split(name).images[:500]) for name in ("test", "train")]
    if request.param == "shapes":
        source = Shapes.Config(channels=3, height=32, width=32, num_train=500, num_test=500)
        return [to_float(source.build().split(name).images[:500]) for name in ("test", "train")]
    noise = torch.rand(1000, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return blur(noise).chunk(2)


def scores(images, damage):
    """Return the score of damaged images, and the real-data baseline."""
    real, other = images
    pairs = (real, damage(other)), (real, other)
    return [border_contrast_distance(*(batch(to_uint8(x)) for x in pair)) for pair in pairs]


def test_a_frame_scores_five_times_the_baseline(images):
    framed, baseline = scores(images, add_frame)
    assert framed > 5 * baseline
    assert baseline < 0.05


@pytest.mark.parametrize(
    "damage",
    [lambda x: 0.5 + 0.6 * (x - 0.5), lambda x: x.flip(-1), lambda x: x.transpose(2, 3)],
    ids=["contrast", "mirrored", "transposed"],
)
def test_changes_that_have_no_frame_score_like_real_images(images, damage):
    changed, baseline = scores(images, damage)
    assert changed < baseline + 0.02


def test_contrasts_are_those_of_neighbors_across_the_sides():
    images = torch.zeros(1, 1, 8, 10, dtype=torch.uint8)
    images[..., 0, :] = 40  # a line at the upper side: a step at distance 0 from one of 4 sides
    assert contrast_by_distance(images).tolist() == [10, 0, 0, 0]
    images[..., 1, :] = 40
    assert contrast_by_distance(images).tolist() == [0, 10, 0, 0]
    assert contrast_by_distance(images.transpose(2, 3)).tolist() == [0, 10, 0, 0]


def test_profile_is_relative_to_the_inside_and_ignores_chunks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 3, 24, 40), dtype=torch.uint8, generator=generator)
    profile = border_profile(batch(images))
    assert profile.shape == (3,) and torch.allclose(profile, torch.ones(3).double(), atol=0.1)
    monkeypatch.setattr(border, "CHUNK_IMAGES", 2)
    assert torch.allclose(border_profile(batch(images)), profile)


@pytest.mark.parametrize("shape", [(1, 7, 30), (3, 1, 1)])
def test_small_images_have_no_border(shape):
    images = torch.randint(256, (4, *shape), dtype=torch.uint8)
    assert border_contrast_distance(batch(images), batch(images.flip(0) // 2)) == 0


def test_constant_images_have_a_finite_score():
    flat = torch.full((4, 1, 16, 16), 9, dtype=torch.uint8)
    assert border_contrast_distance(batch(flat), batch(flat)) == 0
    framed = flat.clone()
    framed[..., 0, :] = 200
    assert 0 < border_contrast_distance(batch(flat), batch(framed)) < float("inf")


def test_score_needs_pixels_only():
    score = SAMPLE_SCORES["border_contrast_distance"]
    assert score.is_defined(*[batch(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))] * 2)
    assert not score.is_defined(*[FeatureBatch(torch.zeros(2, 1))] * 2)
