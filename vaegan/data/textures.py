"""Photographs and drawings, which have different defaults of the generator."""

from __future__ import annotations

from vaegan.data.dataset import ArrayLike

NUM_CHECKED_IMAGES = 200  # training images that decide on the defaults
# Least fraction of equal neighboring pixels in drawings. It was 0.05 to 0.11 in three sets of
# photographs and 0.36 to 0.58 in four of drawings.
FLAT_FRACTION = 0.2


def has_textures(images: ArrayLike) -> bool:
    """True for photographs; false for drawings, in which many neighboring pixels are equal.

    Args:
        images: Training images, uint8, (N, C, H, W); the first `NUM_CHECKED_IMAGES` are compared.
    """
    checked = images[:NUM_CHECKED_IMAGES]
    is_equal = (checked[..., 1:] == checked[..., :-1]).all(1)
    return float(is_equal.float().mean()) < FLAT_FRACTION
