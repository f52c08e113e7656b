import gzip

import pytest
import torch
import torchvision.datasets

from vaegan.data.dataset import ImageSource
from vaegan.data.mnist import EMBEDDED_MNIST, Emnist, FashionMnist, Kmnist, Mnist

SPLITS = ("train", "val", "test")


def write_idx(path, array):
    header = bytes([0, 0, 8, array.dim()]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.numpy().tobytes(), 1))


def write_set(folder, stems=("train", "t10k"), num_train=30, num_test=10, size=28):
    """A small data set in MNIST's format; returns the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, num in zip(stems, (num_train, num_test), strict=True):
        images = torch.randint(256, (num, size, size), dtype=torch.uint8)
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(
            folder / f"{stem}-labels-idx1-ubyte.gz", torch.randint(10, (num,), dtype=torch.uint8)
        )
        if stem == stems[0]:
            train = images
    return train


def test_the_embedded_mnist_is_whole():
    source = Mnist.Config().build()
    source.prepare()
    train, val, test = (source.split(name) for name in SPLITS)
    assert [len(split.images) for split in (train, val, test)] == [55_000, 5_000, 10_000]
    assert train.images.shape[1:] == source.image_shape == (1, 28, 28)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert torch.bincount(torch.cat([train.labels, val.labels])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    together = torch.cat([train.images, val.images])
    assert together.double().mean().item() / 255 == pytest.approx(
        0.1307, abs=1e-4
    )  # the figure that everyone uses


def test_train_and_val_are_a_fixed_division(tmp_path):
    original = write_set(tmp_path)
    config = FashionMnist.Config(root=str(tmp_path), num_val=7)
    train, val = config.build().split("train"), config.build().split("val")
    together = torch.cat([train.images, val.images])
    assert (len(train.images), len(val.images)) == (23, 7)
    assert sorted(map(bytes, together.flatten(1).numpy())) == sorted(
        map(bytes, original.flatten(1).numpy())
    )
    assert torch.equal(config.build().split("val").images, val.images)
    other = FashionMnist.Config(root=str(tmp_path), num_val=7, split_seed=1).build().split("val")
    assert not torch.equal(other.images, val.images)


@pytest.mark.parametrize(
    "source, name", [(FashionMnist, "FashionMNIST"), (Kmnist, "KMNIST"), (Emnist, "EMNIST")]
)
def test_the_folders_that_torchvision_makes_are_read(tmp_path, source, name):
    stems = (
        ("emnist-balanced-train", "emnist-balanced-test") if source is Emnist else ("train", "t10k")
    )
    write_set(tmp_path / name / "raw", stems)
    built = source.Config(root=str(tmp_path), num_val=5).build()
    built.prepare()
    assert [len(built.split(part).images) for part in SPLITS] == [25, 5, 10]


def test_emnist_is_turned_upright(tmp_path):
    write_set(tmp_path)
    for kind in ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"):
        (tmp_path / f"emnist-letters-test-{kind}").write_bytes(
            (tmp_path / f"t10k-{kind}").read_bytes()
        )
    test = Emnist.Config(root=str(tmp_path), subset="letters").build().split("test")
    stored = FashionMnist.Config(root=str(tmp_path)).build().split("test")
    assert torch.equal(test.images, stored.images.mT)


def test_missing_files_are_downloaded_by_torchvision(tmp_path, monkeypatch):
    def download(root, download, split):
        assert download and split == "balanced"
        write_set(root / "EMNIST" / "raw", ("emnist-balanced-train", "emnist-balanced-test"))

    monkeypatch.setattr(torchvision.datasets, "EMNIST", download)
    source = Emnist.Config(root=str(tmp_path), num_val=5).build()
    source.prepare()
    assert len(source.split("train").images) == 25


def test_failed_download_says_what_to_do(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "KMNIST", fail)
    with pytest.raises(
        ValueError, match=r"dataset=kmnist: train-images.*no network.*set dataset\.root"
    ):
        Kmnist.Config(root=str(tmp_path)).build().prepare()


def test_missing_mnist_says_what_to_do(tmp_path):
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz is missing; restore it \(git checkout"
    ):
        Mnist.Config(root=str(tmp_path)).build().prepare()


def test_damaged_mnist_is_noticed_by_its_sum(tmp_path):
    write_set(tmp_path)
    with pytest.raises(ValueError, match="is damaged: its content's SHA-256"):
        Mnist.Config(root=str(tmp_path)).build().split("test")


def test_cut_mnist_is_noticed(tmp_path):
    for path in EMBEDDED_MNIST.glob("t10k*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz is truncated or damaged"):
        Mnist.Config(root=str(tmp_path)).build().split("test")


def test_other_image_sizes_are_refused(tmp_path):
    write_set(tmp_path, size=32)
    with pytest.raises(ValueError, match=r"images of shape \(10, 32, 32\).*expected \(N, 28, 28\)"):
        FashionMnist.Config(root=str(tmp_path)).build().split("test")


def test_val_cannot_take_all(tmp_path):
    write_set(tmp_path)
    with pytest.raises(
        ValueError, match="dataset.num_val must be less than the 30 training images; got 30"
    ):
        FashionMnist.Config(root=str(tmp_path), num_val=30).build().split("train")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Mnist.Config(num_val=0), "num_val must be at least 2"),
        (lambda: Emnist.Config(subset="latin"), "subset must be one of balanced, byclass"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_source_says_its_shape_before_it_reads():
    for choice in ImageSource.choices.values():
        assert len(choice.Config().build().image_shape) == 3
