import torch

from vaegan.images import to_float, to_uint8


def test_all_levels_survive_both_ways():
    levels = torch.arange(256, dtype=torch.uint8)
    assert to_float(levels).aminmax() == (0.0, 1.0)
    assert torch.equal(to_uint8(to_float(levels)), levels)


def test_out_of_range_is_clipped():
    assert to_uint8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]
