"""Copies of training images among generated images."""

import pytest
import torch

from vaegan.metrics.memorization import find_memorized, find_nearest


def test_nearest_training_image_is_found():
    train = torch.randn(700, 5)
    distances, indices = find_nearest(train[[3, 600, 41]] + 1e-4, train)
    assert indices.tolist() == [3, 600, 41]
    torch.testing.assert_close(distances, torch.full((3,), 5**0.5 * 1e-4), rtol=1e-2, atol=0)


def test_new_images_have_the_fraction_of_held_out_images():
    train, held_out, fake = torch.randn(3, 2000, 4)
    result = find_memorized(fake, held_out, train)
    assert result.fraction == pytest.approx(0.05, abs=0.03)
    assert result.real_fraction == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("num_copies", [200, 1000])
def test_copies_raise_the_fraction(num_copies):
    train, held_out, fake = torch.randn(3, 1000, 4)
    fake[:num_copies] = train[:num_copies] + 1e-3 * torch.randn(num_copies, 4)
    result = find_memorized(fake, held_out, train)
    assert num_copies / 1000 <= result.fraction <= num_copies / 1000 + 0.1
    assert torch.equal(result.nearest[:num_copies], torch.arange(num_copies))


def test_one_held_out_image_is_rejected():
    with pytest.raises(ValueError, match="number of held-out images must be at least 2; got 1"):
        find_memorized(torch.randn(3, 2), torch.randn(1, 2), torch.randn(9, 2))
