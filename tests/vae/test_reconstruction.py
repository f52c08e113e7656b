"""PSNR and SSIM of reconstructions."""

import pytest
import torch

from vaegan.vae.reconstruction import compare_reconstructions, psnr, ssim


def test_psnr_is_the_ratio_of_the_range_to_the_error():
    targets = torch.full((3, 1, 12, 14), 0.5)
    images = targets + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(images, targets), torch.tensor([20.0, 40.0, 100.0]))


def test_ssim_of_constant_images_is_the_term_of_their_means():
    """Without contrast, SSIM is (2 a b + C1) / (a^2 + b^2 + C1), with C1 = 0.01^2."""
    images, targets = torch.full((2, 3, 11, 13), 0.6), torch.full((2, 3, 11, 13), 0.2)
    expected = (2 * 0.6 * 0.2 + 1e-4) / (0.6**2 + 0.2**2 + 1e-4)
    assert ssim(images, targets).tolist() == pytest.approx([expected] * 2, rel=1e-3)


def test_ssim_is_computed_for_each_image():
    targets = torch.rand(4, 1, 16, 16)
    images = targets.clone()
    images[2] = torch.rand(1, 16, 16)
    values = ssim(images, targets)
    torch.testing.assert_close(values[[0, 1, 3]], torch.ones(3))
    assert values[2] < 0.5
    torch.testing.assert_close(ssim(images[2:3], targets[2:3]), values[2:3])


def test_small_images_have_no_ssim():
    x = torch.rand(2, 1, 12, 8)
    sizes = [len(values) for values in compare_reconstructions(x, x).values()]
    assert sizes == [2, 0]
    x = torch.rand(2, 1, 12, 11)
    for values in compare_reconstructions(x, x).values():
        assert len(values) == 2 and values.isfinite().all()
