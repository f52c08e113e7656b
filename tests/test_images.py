"""Tests of the conversion between uint8 and float images."""

import torch

from vaegan.images import to_float, to_uint8


def test_conversion_to_float_and_back_keeps_all_levels():
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_float(levels).aminmax() == (0.0, 1.0)
    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_values_out_of_range_are_clipped():
    assert to_uint8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]
