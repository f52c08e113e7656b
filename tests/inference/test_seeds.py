import pytest

from vaegan.inference.seeds import parse_seeds


@pytest.mark.parametrize(
    "value, seeds",
    [
        (5, [5]),
        ("5", [5]),
        ("0-3", [0, 1, 2, 3]),
        ("7-7", [7]),
        ("0-1,8", [0, 1, 8]),
        ([3, "1-2", 9], [3, 1, 2, 9]),
    ],
)
def test_seeds_are_numbers_ranges_and_lists(value, seeds):
    assert parse_seeds(value, "seeds") == seeds


@pytest.mark.parametrize("value", ["abc", "3-", "-3", "1.5", "", [], [None], "0-5-9", 1.5, True])
def test_other_values_are_rejected(value):
    with pytest.raises(ValueError, match="seeds must be a seed, a range such as 0-63, or a list"):
        parse_seeds(value, "seeds")


def test_a_range_must_increase_and_be_bounded():
    with pytest.raises(ValueError, match="seeds must be a range from a smaller to a larger seed"):
        parse_seeds("9-3", "seeds")
    with pytest.raises(ValueError, match="interpolation must be at most 10000000 seeds"):
        parse_seeds("0-99999999999", "interpolation")
