import pytest

from vaegan.data.images.hash_division import HashDivision, default_fraction


@pytest.mark.parametrize(
    "num_images, expected",
    [(50, 10), (100, 20), (400, 80), (500, 100), (827, 100), (1000, 100), (8000, 800)],
)
def test_default_split_has_10_percent_but_100_images_if_the_folder_has_enough(num_images, expected):
    assert round(num_images * default_fraction(num_images)) == expected


def test_splits_have_about_the_given_sizes_and_depend_on_the_seed():
    digests = [i.to_bytes(16, "big") for i in range(5000)]
    division = HashDivision(val_fraction=0.1, test_fraction=0.3, seed=0)
    splits = [division.assign_split(digest) for digest in digests]
    assert splits.count("val") == pytest.approx(500, abs=80)
    assert splits.count("test") == pytest.approx(1500, abs=130)
    assert splits == [division.assign_split(digest) for digest in digests]
    assert splits != [division._replace(seed=1).assign_split(digest) for digest in digests]


def test_smaller_fraction_selects_part_of_the_same_images():
    digests = [i.to_bytes(16, "big") for i in range(2000)]
    large, small = HashDivision(0.2, 0.2, 0), HashDivision(0.1, 0.1, 0)
    for split in ("val", "test"):
        chosen = {digest for digest in digests if small.assign_split(digest) == split}
        assert chosen < {digest for digest in digests if large.assign_split(digest) == split}


def test_split_with_a_folder_gets_no_images_by_hash():
    division = HashDivision(0.0, 0.0, 0)
    assert {division.assign_split(i.to_bytes(16, "big")) for i in range(500)} == {"train"}
