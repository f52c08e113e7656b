import os

import pytest
import torch

from tests.image_files import content, draw, encode, fill
from vaegan.data.images.broken_files import BrokenFileLimit
from vaegan.data.images.decoding import ImageDecoder
from vaegan.data.images.on_demand import ImagesOnDemand, check_files
from vaegan.data.images.scanning import scan

DECODER = ImageDecoder(3, 8, 10, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)


def open_images(root, paths, max_broken=0.5, fail_fast=False, labels=None):
    labels = torch.zeros(len(paths)) if labels is None else torch.tensor(labels)
    broken_files = BrokenFileLimit(len(paths), max_broken, fail_fast)
    return ImagesOnDemand(root, [path.name for path in paths], labels, DECODER, broken_files, 2)


def decode(path):
    return torch.from_numpy(DECODER(path.read_bytes())).permute(2, 0, 1)


def test_images_are_decoded_at_each_access(tmp_path):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths)
    paths[1].write_bytes(encode(draw(seed=77)))
    assert len(images) == 6 and images[:0].shape == (0, 3, 8, 10)
    assert torch.equal(
        images[torch.tensor([4, 1])], torch.stack([decode(paths[4]), decode(paths[1])])
    )
    assert torch.equal(images[2:4], torch.stack([decode(path) for path in paths[2:4]]))


def test_broken_files_are_replaced_by_the_next_good_image(tmp_path, caplog):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths)
    paths[4].unlink()
    paths[5].write_bytes(content("rgb.png")[:-100])
    assert torch.equal(images[torch.tensor([4])][0], decode(paths[0]))
    assert [skipped.path for skipped in images.broken_files.skipped] == ["0004.png", "0005.png"]
    assert "'0004.png' cannot be used" in caplog.text
    caplog.clear()
    assert torch.equal(images[torch.tensor([5])][0], decode(paths[0])) and not caplog.text


def test_replacement_image_has_the_same_class(tmp_path):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths, labels=[0, 1, 0, 1, 1, 0])
    paths[2].unlink()
    assert torch.equal(images[torch.tensor([2])][0], decode(paths[5]))


def test_pipe_does_not_block(tmp_path):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths)
    paths[1].unlink()
    os.mkfifo(paths[1])
    assert torch.equal(images[torch.tensor([1])][0], decode(paths[2]))
    assert images.broken_files.skipped == [("0001.png", "not a regular file")]


def test_fail_fast_raises_at_the_first_broken_file(tmp_path):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths, fail_fast=True)
    paths[3].unlink()
    with pytest.raises(ValueError, match=r"0003\.png': .*No such file"):
        images[:]


def test_too_many_broken_files_raise(tmp_path):
    paths = fill(tmp_path, 6)
    images = open_images(tmp_path, paths, max_broken=0.34)
    for path in paths[:3]:
        path.unlink()
    with pytest.raises(
        ValueError, match=r"3 of 6 files cannot be used, more than dataset\.max_broken=0\.34"
    ):
        images[:]


def test_missing_folder_raises(tmp_path):
    paths = fill(tmp_path, 2)
    images = open_images(tmp_path, paths, max_broken=1.0)
    for path in paths:
        path.unlink()
    with pytest.raises(
        ValueError, match="no image of the class of '0000.png' in .* can be read; restore"
    ):
        images[:1]


def test_check_files_hashes_each_good_file(tmp_path):
    fill(tmp_path, 5)
    (tmp_path / "empty.png").write_bytes(b"")
    files, _, _ = scan(tmp_path)
    broken_files = BrokenFileLimit(6, 0.5, False)
    found = check_files(tmp_path, files, DECODER, broken_files, 2)
    assert len(found) == len({content.digest for content in found.values()}) == 5
    assert broken_files.skipped == [("empty.png", "the file is empty")]


def test_sample_leaves_out_broken_files_without_reporting_them(tmp_path):
    paths = fill(tmp_path, 9)
    images = open_images(tmp_path, paths, fail_fast=True)
    paths[4].write_bytes(b"junk")
    expected = torch.stack([decode(paths[i]) for i in (0, 2, 6, 8)])
    assert torch.equal(images.sample(4), expected)
    assert images.sample(99).shape == (8, 3, 8, 10) and not images.broken_files.skipped
