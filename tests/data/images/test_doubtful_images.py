import pytest
import torch

from vaegan.data.images.decoding import ImageTraits
from vaegan.data.images.doubtful_images import describe_constant_images, describe_doubtful_traits


def warnings_for(num_bits, bit_depth=16):
    traits = [ImageTraits(number) for number in num_bits]
    return list(describe_doubtful_traits(traits, bit_depth))


@pytest.mark.parametrize("usual", [9, 10, 12, 14])
def test_unused_bits_of_16_bit_files_give_a_warning_with_the_remedy(usual):
    (warning,) = warnings_for([0] * 500 + [usual] * 99 + [16])
    assert "100 16-bit images stay below level" in warning
    assert f"set dataset.bit_depth={usual}" in warning
    assert not warnings_for([usual] * 100, bit_depth=usual)


@pytest.mark.parametrize("num_bits", [[], [0] * 50, [16] * 50, [15] * 50, [12] * 50 + [16] * 50])
def test_full_range_gives_no_warning(num_bits):
    assert not warnings_for(num_bits)


def test_clipped_levels_give_a_warning():
    (warning,) = warnings_for([12] * 9 + [16], bit_depth=12)
    assert "16-bit images with levels above 4095, which are clipped: 1 of 10" in warning


def test_stacks_are_counted():
    (warning,) = describe_doubtful_traits([ImageTraits(0, True)] * 3 + [ImageTraits()], 16)
    assert warning.startswith("multi-page TIFF files: 3")


class Sample:
    """Images that return all of themselves as a sample."""

    def __init__(self, images):
        self.images = images

    def sample(self, num_images):
        return self.images


def test_nearly_constant_images_give_a_warning():
    images = torch.randint(256, (64, 3, 8, 8), dtype=torch.uint8)
    assert describe_constant_images(Sample(images)) is None
    assert "64 of 64" in describe_constant_images(Sample(images // 8))
    color = torch.tensor([255, 0, 90], dtype=torch.uint8).view(1, 3, 1, 1).expand(3, 3, 8, 8)
    warning = describe_constant_images(Sample(color))
    assert "3 of 3 sampled training images are nearly constant" in warning
    assert describe_constant_images(Sample(torch.cat([color, images[:9]]))) is None
    assert describe_constant_images(Sample(images[:0])) is None
