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


def write_data_set(folder, prefixes=("train", "t10k"), num_train=30, num_test=10, size=28):
    """Write a small data set in the format of MNIST; return its training images."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, num in zip(prefixes, (num_train, num_test), strict=True):
        images = torch.randint(256, (num, size, size), dtype=torch.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(
            folder / f"{prefix}-labels-idx1-ubyte.gz", torch.randint(10, (num,), dtype=torch.uint8)
        )
        if prefix == prefixes[0]:
            train = images
    return train


def test_embedded_mnist_is_complete():
    source = Mnist.Config().build()
    source.prepare()
    train, val, test = (source.split(name) for name in SPLITS)
    assert [len(split.images) for split in (train, val, test)] == [55_000, 5_000, 10_000]
    assert train.images.shape[1:] == source.image_shape == (1, 28, 28)
    assert train.images.dtype == torch.uint8 and train.labels.dtype == torch.int64
    assert torch.bincount(torch.cat([train.labels, val.labels])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    all_images = torch.cat([train.images, val.images])
    assert all_images.double().mean().item() / 255 == pytest.approx(
        0.1307, abs=1e-4
    )  # the commonly quoted mean


def test_train_and_val_are_a_fixed_division(tmp_path):
    original = write_data_set(tmp_path)
    config = FashionMnist.Config(root=str(tmp_path), num_val=7)
    train, val = config.build().split("train"), config.build().split("val")
    all_images = torch.cat([train.images, val.images])
    assert (len(train.images), len(val.images)) == (23, 7)
    assert sorted(map(bytes, all_images.flatten(1).numpy())) == sorted(
        map(bytes, original.flatten(1).numpy())
    )
    assert torch.equal(config.build().split("val").images, val.images)
    other = FashionMnist.Config(root=str(tmp_path), num_val=7, split_seed=1).build().split("val")
    assert not torch.equal(other.images, val.images)


@pytest.mark.parametrize(
    "source, name", [(FashionMnist, "FashionMNIST"), (Kmnist, "KMNIST"), (Emnist, "EMNIST")]
)
def test_torchvision_folders_are_read(tmp_path, source, name):
    prefixes = (
        ("emnist-balanced-train", "emnist-balanced-test") if source is Emnist else ("train", "t10k")
    )
    write_data_set(tmp_path / name / "raw", prefixes)
    data_set = source.Config(root=str(tmp_path), num_val=5).build()
    data_set.prepare()
    assert [len(data_set.split(split).images) for split in SPLITS] == [25, 5, 10]


def test_emnist_is_transposed(tmp_path):
    write_data_set(tmp_path)
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
        write_data_set(root / "EMNIST" / "raw", ("emnist-balanced-train", "emnist-balanced-test"))

    monkeypatch.setattr(torchvision.datasets, "EMNIST", download)
    source = Emnist.Config(root=str(tmp_path), num_val=5).build()
    source.prepare()
    assert len(source.split("train").images) == 25


def test_failed_download_raises_with_a_remedy(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "KMNIST", fail)
    with pytest.raises(
        ValueError, match=r"dataset=kmnist: train-images.*no network.*set dataset\.root"
    ):
        Kmnist.Config(root=str(tmp_path)).build().prepare()


def test_missing_mnist_raises_with_a_remedy(tmp_path):
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz is missing; restore it \(git checkout"
    ):
        Mnist.Config(root=str(tmp_path)).build().prepare()


def test_wrong_checksum_raises(tmp_path):
    write_data_set(tmp_path)
    with pytest.raises(ValueError, match="is damaged: the SHA-256 of its content"):
        Mnist.Config(root=str(tmp_path)).build().split("test")


def test_truncated_mnist_raises(tmp_path):
    for path in EMBEDDED_MNIST.glob("t10k*.gz"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="t10k-images-idx3-ubyte.gz is truncated or damaged"):
        Mnist.Config(root=str(tmp_path)).build().split("test")


def test_other_image_sizes_raise(tmp_path):
    write_data_set(tmp_path, size=32)
    with pytest.raises(
        ValueError, match=r"images of shape \(10, 32, 32\).*expected shape \(N, 28, 28\)"
    ):
        FashionMnist.Config(root=str(tmp_path)).build().split("test")


def test_num_val_must_leave_training_images(tmp_path):
    write_data_set(tmp_path)
    message = "dataset.num_val must be less than 30, the number of training images; got 30"
    with pytest.raises(ValueError, match=message):
        FashionMnist.Config(root=str(tmp_path), num_val=30).build().split("train")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Mnist.Config(num_val=0), "num_val must be at least 2"),
        (lambda: Emnist.Config(subset="latin"), "subset must be one of balanced, byclass"),
    ],
)
def test_invalid_settings_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_image_shape_is_known_before_any_data_are_read():
    for choice in ImageSource.choices.values():
        assert len(choice.Config().build().image_shape) == 3
