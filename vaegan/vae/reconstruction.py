"""Similarity of images and their reconstructions, pixel by pixel."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

RECONSTRUCTION_SCORES = ("reconstruction_psnr", "reconstruction_ssim")
MIN_ERROR = 1e-10  # smallest mean squared error: equal images have a PSNR of 100 dB
SSIM_WINDOW = 11  # pixels, side of the Gaussian window (standard deviation 1.5)


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of images in [0, 1], (B, C, H, W), in dB, (B,)."""
    error = (images - targets).square().mean((1, 2, 3))
    return -10 * error.clamp(min=MIN_ERROR).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Return the structural similarity of images in [0, 1], at most 1, (B,).

    Args:
        images: Images, (B, C, H, W), with sides of at least `SSIM_WINDOW` pixels.
        targets: Images to compare them with, (B, C, H, W).

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861.
    """
    values = structural_similarity_index_measure(
        images.contiguous(), targets.contiguous(), data_range=1.0, reduction="none"
    )
    assert isinstance(values, Tensor)
    return values.reshape(len(images))


def compare_reconstructions(images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return PSNR and SSIM by the names in RECONSTRUCTION_SCORES, (B,) each.

    SSIM is empty, (0,), if the images are smaller than its window.
    """
    has_window = min(targets.shape[-2:]) >= SSIM_WINDOW
    similarity = ssim(images, targets) if has_window else targets.new_empty(0)
    return dict(zip(RECONSTRUCTION_SCORES, (psnr(images, targets), similarity), strict=True))
