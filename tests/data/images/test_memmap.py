import pickle

import pytest
import torch

from vaegan.data.images.memmap import MemmapArray, MemmapImages, prefetch

PIXELS = torch.arange(5 * 2 * 3 * 4, dtype=torch.uint8).view(5, 2, 3, 4)
IMAGES = PIXELS.permute(0, 3, 1, 2)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "pixels").write_bytes(bytes(PIXELS.numpy()) + b"half a row")
    return tmp_path / "pixels"


def test_rows_are_selected_in_any_order(path):
    prefetch(path)
    images = MemmapImages(MemmapArray(path, 5, (2, 3, 4)), torch.tensor([4, 0, 2]))
    assert len(images) == 3 and torch.equal(images[:], IMAGES[[4, 0, 2]])
    assert torch.equal(images[torch.tensor([2, 0])], IMAGES[[2, 4]])
    assert images[:0].shape == (0, 4, 2, 3)
    assert images[:].is_contiguous(memory_format=torch.channels_last)


def test_sample_has_equal_distances(path):
    images = MemmapImages(MemmapArray(path, 5, (2, 3, 4)), torch.arange(5))
    assert torch.equal(images.sample(2), IMAGES[[0, 2, 4]])
    assert torch.equal(images.sample(99), IMAGES)


def test_changes_in_memory_do_not_reach_the_file(path):
    images = MemmapImages(MemmapArray(path, 5, (2, 3, 4)), torch.arange(5))
    images.array.pixels.zero_()
    assert path.read_bytes()[: PIXELS.numel()] == bytes(PIXELS.numpy())


def test_pickled_images_map_the_file_again(path):
    images = MemmapImages(MemmapArray(path, 5, (2, 3, 4)), torch.tensor([1]))
    assert torch.equal(pickle.loads(pickle.dumps(images))[:], IMAGES[1:2])


def test_empty_array_needs_no_file(tmp_path):
    assert MemmapArray(tmp_path / "none", 0, (2, 3, 4)).pixels.shape == (0, 2, 3, 4)


@pytest.mark.parametrize("num_rows", [6, 100])
def test_file_that_is_too_short_raises(path, num_rows):
    with pytest.raises(ValueError, match="was rebuilt by another process; restart the run"):
        MemmapArray(path, num_rows, (2, 3, 4))
