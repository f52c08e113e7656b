import os

import pytest
import torch

from tests.image_files import content, draw, encode, fill
from vaegan.data.images.decoding import ImageDecoder
from vaegan.data.images.on_demand import ImagesOnDemand, hash_files
from vaegan.data.images.reading import BrokenFileLimit
from vaegan.data.images.scanning import scan

DECODER = ImageDecoder(3, 8, 10, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)


def images_of(root, paths, max_broken=0.5, fails=False, labels=None):
    labels = torch.zeros(len(paths)) if labels is None else torch.tensor(labels)
    broken_files = BrokenFileLimit(len(paths), max_broken, fails)
    return ImagesOnDemand(root, [path.name for path in paths], labels, DECODER, broken_files, 2)


def expected(path):
    return torch.from_numpy(DECODER(path.read_bytes())).permute(2, 0, 1)


def test_images_are_decoded_when_they_are_asked_for(tmp_path):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths)
    paths[1].write_bytes(encode(draw(seed=77)))
    assert len(images) == 6 and images[:0].shape == (0, 3, 8, 10)
    assert torch.equal(
        images[torch.tensor([4, 1])], torch.stack([expected(paths[4]), expected(paths[1])])
    )
    assert torch.equal(images[2:4], torch.stack([expected(path) for path in paths[2:4]]))


def test_the_next_good_image_stands_for_one_that_went(tmp_path, caplog):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths)
    paths[4].unlink()
    paths[5].write_bytes(content("rgb.png")[:-100])
    assert torch.equal(images[torch.tensor([4])][0], expected(paths[0]))
    assert [skipped.path for skipped in images.broken_files.skipped] == ["0004.png", "0005.png"]
    assert "'0004.png' cannot be used" in caplog.text
    caplog.clear()
    assert torch.equal(images[torch.tensor([5])][0], expected(paths[0])) and not caplog.text


def test_the_image_that_stands_for_another_is_of_its_class(tmp_path):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths, labels=[0, 1, 0, 1, 1, 0])
    paths[2].unlink()
    assert torch.equal(images[torch.tensor([2])][0], expected(paths[5]))


def test_a_file_that_never_ends_is_not_waited_for(tmp_path):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths)
    paths[1].unlink()
    os.mkfifo(paths[1])
    assert torch.equal(images[torch.tensor([1])][0], expected(paths[2]))
    assert images.broken_files.skipped == [("0001.png", "not an ordinary file")]


def test_the_first_failure_stops_where_that_is_wanted(tmp_path):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths, fails=True)
    paths[3].unlink()
    with pytest.raises(ValueError, match=r"0003\.png': .*No such file"):
        images[:]


def test_too_many_failures_stop_the_run(tmp_path):
    paths = fill(tmp_path, 6)
    images = images_of(tmp_path, paths, max_broken=0.34)
    for path in paths[:3]:
        path.unlink()
    with pytest.raises(
        ValueError, match=r"3 of 6 files cannot be used, more than dataset\.max_broken=0\.34"
    ):
        images[:]


def test_a_folder_that_is_gone_is_said(tmp_path):
    paths = fill(tmp_path, 2)
    images = images_of(tmp_path, paths, max_broken=1.0)
    for path in paths:
        path.unlink()
    with pytest.raises(
        ValueError, match="no image of the class of '0000.png' in .* can be read any more"
    ):
        images[:1]


def test_every_file_is_looked_at_once(tmp_path):
    fill(tmp_path, 5)
    (tmp_path / "empty.png").write_bytes(b"")
    files, _ = scan(tmp_path)
    broken_files = BrokenFileLimit(6, 0.5, False)
    found = hash_files(tmp_path, files, DECODER, broken_files, 2)
    assert len(found) == len(set(found.values())) == 5
    assert broken_files.skipped == [("empty.png", "the file is empty")]
