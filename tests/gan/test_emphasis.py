"""Tests of the emphasis of colors and details in the images that the discriminator sees."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, pad

from vaegan.gan.emphasis import Emphasis, EmphasisConfig, saved_emphasis


def emphasize(images, saturation=1.0, sharpness=0.0):
    return Emphasis(EmphasisConfig(saturation, sharpness))(images)


def checkerboard(height, width):
    return torch.tensor([[(i + j) % 2 for j in range(width)] for i in range(height)]).float()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 4, 7), (3, 1, 5)])
def test_gray_areas_do_not_change(shape):
    images = torch.rand(2, 1, 1, 1).expand(2, *shape)
    output = emphasize(images, saturation=3.0, sharpness=4.0)
    assert output.shape == (2, *shape)
    torch.testing.assert_close(output, images)


def test_neutral_values_return_the_images():
    images = torch.rand(2, 3, 8, 8)
    assert emphasize(images) is images


def test_saturation_multiplies_the_differences_of_the_channels():
    pixel = torch.tensor([0.2, 0.5, 0.8]).reshape(1, 3, 1, 1)
    output = emphasize(pixel, saturation=3.0).flatten()
    torch.testing.assert_close(output, torch.tensor([-0.4, 0.5, 1.4]))
    images = torch.rand(2, 3, 8, 8)
    output = emphasize(images, saturation=3.0)
    torch.testing.assert_close(output.mean(1), images.mean(1))


def test_images_with_one_channel_have_no_saturation():
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(emphasize(images, saturation=3.0), images)


@pytest.mark.parametrize("shape", [(3, 6, 9), (1, 2, 1)])
def test_sharpness_adds_the_difference_to_the_mean_over_3_by_3_pixels(shape):
    images = torch.rand(2, *shape, dtype=torch.float64)
    mean = avg_pool2d(pad(images, (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1)
    output = emphasize(images, sharpness=4.0)
    torch.testing.assert_close(output, images + 4 * (images - mean))


def test_fine_details_grow_more_than_coarse_ones():
    """The mean of a checkerboard over 3 x 3 pixels has 1/9 of its contrast, with the same sign."""
    fine = checkerboard(16, 16)[None, None]
    coarse = fine.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., :16, :16]
    fine_gain = emphasize(fine, sharpness=4.0)[..., 4:12, 4:12].std() / fine.std()
    coarse_gain = emphasize(coarse, sharpness=4.0).std() / coarse.std()
    assert fine_gain.item() == pytest.approx(1 + 4 * 8 / 9, rel=0.02)
    assert 1 < coarse_gain < fine_gain / 2


def test_the_filter_is_invertible():
    """No pattern of an image is hidden from the discriminator."""
    basis = torch.eye(3 * 6 * 6).reshape(-1, 3, 6, 6)
    matrix = emphasize(basis, saturation=3.0, sharpness=4.0).flatten(1)
    assert torch.linalg.svdvals(matrix).min() > 0.9


def test_the_memory_format_is_kept():
    images = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    output = emphasize(images, saturation=3.0, sharpness=4.0)
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_float32_images_stay_float32_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert emphasize(torch.rand(2, 3, 8, 8), 3.0, 4.0).dtype == torch.float32


def test_it_is_differentiable_twice():
    images = torch.rand(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    module = Emphasis(EmphasisConfig(3.0, 4.0))
    assert torch.autograd.gradgradcheck(lambda x: module(x).square(), images)


def test_defaults_depend_on_the_images():
    config = EmphasisConfig()
    assert config.resolve_defaults(is_natural=True) == EmphasisConfig(3.0, 4.0)
    assert config.resolve_defaults(is_natural=False) == EmphasisConfig(1.0, 0.0)
    assert EmphasisConfig(1.0, 0.0).is_neutral and not EmphasisConfig(3.0, 0.0).is_neutral
    given = EmphasisConfig(saturation=2.0)
    assert given.resolve_defaults(is_natural=True) == EmphasisConfig(2.0, 4.0)


def test_earlier_versions_had_no_emphasis():
    assert saved_emphasis({"seed": 0}).is_neutral
    saved = {"emphasis": {"saturation": 2.0, "sharpness": 1.0}}
    assert saved_emphasis(saved) == EmphasisConfig(2.0, 1.0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"saturation": 0.0}, "saturation must be positive and finite, or null; got 0.0"),
        ({"saturation": float("inf")}, "saturation must be positive and finite, or null; got inf"),
        ({"sharpness": -1.0}, "sharpness must be at least 0 and finite, or null; got -1.0"),
        ({"sharpness": float("nan")}, "sharpness must be at least 0 and finite, or null; got nan"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        EmphasisConfig(**settings)
