"""Data sets that torchvision reads, on small files in the true formats."""

import hashlib
import pickle
import sys

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from scipy.io import savemat

from vaegan.data.torchvision_source import CelebA, Cifar10, Cifar100, Stl10, Svhn, TorchvisionSource

NUM_TRAIN, NUM_TEST = 20, 6


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root, monkeypatch, name, folder, key, files):
    """Write the pickled batches of CIFAR, and make torchvision expect their checksums."""
    dataset = getattr(torchvision.datasets, name)
    (root / folder).mkdir(parents=True)
    expected = {}
    for file, images, labels in files:
        batch = {"data": images.reshape(len(images), -1), key: labels.tolist()}
        path = root / folder / file
        path.write_bytes(pickle.dumps(batch))
        expected[file] = [file, md5(path)]
    meta = root / folder / dataset.meta["filename"]
    meta.write_bytes(pickle.dumps({dataset.meta["key"]: [str(i) for i in range(100)]}))
    monkeypatch.setattr(dataset, "train_list", [expected[files[0][0]]])
    monkeypatch.setattr(dataset, "test_list", [expected[files[1][0]]])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": md5(meta)})


def write_svhn(root, monkeypatch, train, test):
    lists = {}
    for name, (images, labels) in (("train", train), ("test", test)):
        path = root / f"{name}_32x32.mat"
        content = {
            "X": images.transpose(2, 3, 1, 0),
            "y": np.where(labels == 0, 10, labels)[:, None],
        }
        savemat(path, content)
        lists[name] = ["", path.name, md5(path)]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)


def write_stl10(root, monkeypatch, train, test):
    dataset = torchvision.datasets.STL10
    folder = root / dataset.base_folder
    folder.mkdir()
    lists = {}
    for name, (images, labels) in (("train", train), ("test", test)):
        lists[name] = []
        columns_first = images.transpose(0, 1, 3, 2)
        for kind, content in (("X", columns_first), ("y", (labels + 1).astype(np.uint8))):
            path = folder / f"{name}_{kind}.bin"
            content.tofile(path)
            lists[name].append([path.name, md5(path)])
    unlabeled = folder / "unlabeled_X.bin"
    train[0].transpose(0, 1, 3, 2).tofile(unlabeled)
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    (folder / "fold_indices.txt").write_text("0 1\n" * 10)
    lists["train"] += [[unlabeled.name, md5(unlabeled)]]
    monkeypatch.setattr(dataset, "train_list", lists["train"])
    monkeypatch.setattr(dataset, "test_list", lists["test"])


@pytest.fixture(params=[Cifar10, Cifar100, Svhn, Stl10], ids=lambda source: source.Config.name)
def files(request, tmp_path, monkeypatch):
    """Write a small data set; return its class, its folder, and the images and labels."""
    source = request.param
    generator = np.random.default_rng(0)
    num_classes = 100 if source is Cifar100 else 10
    shape = source.image_shape
    parts = []
    for num in (NUM_TRAIN, NUM_TEST):
        images = generator.integers(0, 256, (num, *shape), dtype=np.uint8)
        parts.append((images, generator.integers(0, num_classes, num)))
    train, test = parts
    if source is Svhn:
        write_svhn(tmp_path, monkeypatch, train, test)
    elif source is Stl10:
        write_stl10(tmp_path, monkeypatch, train, test)
    else:
        is_small = source is Cifar10
        folder = torchvision.datasets.CIFAR10.base_folder if is_small else "cifar-100-python"
        key = "labels" if is_small else "fine_labels"
        names = ("data_batch_1", "test_batch") if is_small else ("train", "test")
        batches = [(name, *part) for name, part in zip(names, parts, strict=True)]
        name = source.TORCHVISION_CLASS
        write_cifar(tmp_path, monkeypatch, name, folder, key, batches)
    return source, tmp_path, train, test


def build(source, root, **options):
    return source.Config(root=str(root), num_val=5, **options).build()


def test_official_test_images_are_the_test_split(files):
    source, root, _, (images, labels) = files
    data = build(source, root)
    data.prepare()
    split = data.split("test")
    assert torch.equal(split.images, torch.from_numpy(images))
    assert torch.equal(split.labels, torch.from_numpy(labels).long())
    assert split.images.shape[1:] == data.image_shape and split.images.dtype == torch.uint8


def test_train_and_val_divide_the_official_training_images(files):
    source, root, (images, labels), _ = files
    data = build(source, root)
    train, val = data.split("train"), data.split("val")
    assert (len(train.images), len(val.images)) == (NUM_TRAIN - 5, 5)
    merged = {
        image.numpy().tobytes(): int(label)
        for split in (train, val)
        for image, label in zip(split.images, split.labels, strict=True)
    }
    expected = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    assert merged == expected


def test_damaged_and_missing_files_raise(files, monkeypatch, tmp_path):
    source, root, _, _ = files

    def offline(*args, **kwargs):
        raise OSError("no network")

    for module in (
        torchvision.datasets.cifar,
        torchvision.datasets.svhn,
        torchvision.datasets.stl10,
    ):
        for name in ("download_and_extract_archive", "download_url"):
            monkeypatch.setattr(module, name, offline, raising=False)
    name = source.Config.name
    with pytest.raises(ValueError, match=f"dataset={name}: .*no network.*set dataset.root"):
        build(source, tmp_path / "empty").prepare()
    largest = max(root.rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"dataset={name}: its files are missing or damaged"):
        build(source, root).prepare()


def test_stl10_can_add_the_unlabeled_images(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (NUM_TRAIN, 3, 96, 96), dtype=np.uint8)
    part = (images, np.arange(NUM_TRAIN) % 10)
    write_stl10(tmp_path, monkeypatch, part, part)
    data = build(Stl10, tmp_path, unlabeled=True)
    assert len(data.split("train").images) == 2 * NUM_TRAIN - 5


def test_svhn_without_scipy_says_so(tmp_path, monkeypatch):
    part = (np.zeros((8, 3, 32, 32), np.uint8), np.arange(8))
    write_svhn(tmp_path, monkeypatch, part, part)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ValueError, match="dataset=svhn requires a package .*scipy"):
        build(Svhn, tmp_path).prepare()


def test_the_default_noise_model_fits_color_images():
    assert TorchvisionSource.LIKELIHOOD == "gaussian"
    with pytest.raises(ValueError, match="num_val must be at least 2; got 1"):
        Cifar10.Config(num_val=1)


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """Write a small CelebA; return its folder, and the file names and shades of gray by split."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    splits = ["train"] * 6 + ["val"] * 3 + ["test"] * 2
    names = [f"{i:06d}.jpg" for i in range(1, len(splits) + 1)]
    rows = {
        "list_attr_celeba.txt": ([len(names), "Smiling Young"], "1 -1"),
        "identity_CelebA.txt": ([], "7"),
        "list_bbox_celeba.txt": ([len(names), "image_id x_1 y_1 width height"], "1 2 3 4"),
        "list_landmarks_align_celeba.txt": ([len(names), "lefteye_x lefteye_y"], "5 6"),
    }
    for file, (header, row) in rows.items():
        lines = [*map(str, header), *(f"{name} {row}" for name in names)]
        (folder / file).write_text("\n".join(lines) + "\n")
    numbers = {"train": 0, "val": 1, "test": 2}
    lines = [f"{name} {numbers[split]}" for name, split in zip(names, splits, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    shades = {"train": [], "val": [], "test": []}
    for i, (name, split) in enumerate(zip(names, splits, strict=True)):
        Image.new("RGB", (178, 218), (20 * i,) * 3).save(folder / "img_align_celeba" / name)
        shades[split].append(20 * i)
    files = [
        (file_id, md5(folder / name) if (folder / name).exists() else "", name)
        for file_id, _, name in torchvision.datasets.CelebA.file_list
    ]
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path, shades


def build_celeba(root):
    return CelebA.Config(root=str(root), image_size=8).build()


def test_celeba_has_the_official_splits(celeba):
    root, shades = celeba
    data = build_celeba(root)
    assert data.prepare() == []
    for name, expected in shades.items():
        split = data.split(name)
        images = split.images[:]
        assert images.shape == (len(expected), *data.image_shape) == (len(expected), 3, 8, 8)
        means = images.float().mean((1, 2, 3)).tolist()
        assert sorted(means) == pytest.approx(sorted(expected), abs=1)
        assert split.labels.tolist() == [0] * len(expected)
    names = {data.image_name("test", i) for i in range(len(shades["test"]))}
    assert "000011.jpg" in names and data.LIKELIHOOD == "gaussian"


def test_celeba_without_files_or_with_missing_images_raises(celeba, tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    module = torchvision.datasets.celeba
    monkeypatch.setattr(module, "download_file_from_google_drive", offline)
    with pytest.raises(ValueError, match="dataset=celeba: .*no network.*set dataset.root"):
        build_celeba(tmp_path / "empty").prepare()
    (celeba[0] / "celeba" / "img_align_celeba" / "000003.jpg").unlink()
    with pytest.raises(ValueError, match="img_align_celeba must be all images .*1 missing"):
        build_celeba(celeba[0]).prepare()
