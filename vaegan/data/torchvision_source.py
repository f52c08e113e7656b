"""Color images that torchvision downloads: CIFAR, SVHN, STL-10, CelebA.

torchvision compares every data file with a known MD5 checksum before it reads it, so that only the
original pickles of CIFAR are loaded. The JPEG files of CelebA are not compared.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName, train_or_val_split
from vaegan.data.image_folder import ImageFolder
from vaegan.data.images.left_out import OUTSIDE_SPLITS, LeftOutFile
from vaegan.data.images.scanning import SkippedFile
from vaegan.data.images.split_folders import FolderLabels, Layout
from vaegan.images import ImageShape
from vaegan.runtime.downloads import download_timeout


def open_dataset(name: str, class_name: str, root: Path, options: Mapping[str, Any]) -> Any:
    """Return a data set of torchvision; missing files are downloaded.

    Args:
        name: Name of the data set in the config, for messages.
        class_name: Name of the class in torchvision.datasets.
        root: Folder of the data files, in the layout of torchvision.
        options: Arguments of the class.

    Raises:
        ValueError: Files are missing or damaged, and cannot be downloaded.
    """
    import torchvision.datasets  # imported late: it takes seconds

    try:
        with download_timeout():
            return getattr(torchvision.datasets, class_name)(str(root), download=True, **options)
    except ImportError as error:
        raise ValueError(
            f"dataset={name} requires a package that is not installed ({error})"
        ) from error
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"dataset={name}: its files are missing or damaged in {root}, and the download failed "
            f"({str(error).strip()}); set dataset.root to the folder that torchvision downloaded "
            "them to"
        ) from error


CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class TorchvisionSource(ImageSource, abc.ABC):
    """Color images of a torchvision data set, held in memory.

    Files are read from `dataset.root`, in the layout of torchvision. Missing files are downloaded
    there.
    """

    TORCHVISION_CLASS: ClassVar[str]  # name in torchvision.datasets
    LIKELIHOOD: ClassVar[str] = "gaussian"
    IS_NATURAL: ClassVar[bool] = True
    DEFAULT_ROOT: ClassVar[str | None] = "data"

    image_shape: ImageShape = (3, 32, 32)

    @dataclass
    class Config(ImageSource.Config):
        root: str | None = None  # folder of the data files; null: ./data
        num_val: int = 5000  # validation images, taken from the official training set, >= 2
        split_seed: int = 0  # random seed of the division into train and val

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.official_sets: dict[bool, Split] = {}  # training (False) and test set, until split

    @abc.abstractmethod
    def options(self, is_test: bool) -> Mapping[str, Any]:
        """Return the arguments of the torchvision class for the official training or test set."""

    def load(self, is_test: bool) -> Split:
        """Read the official training or test set; download missing files.

        Raises:
            ValueError: Files are missing or damaged, and cannot be downloaded.
        """
        root = Path(self.config.root or str(self.DEFAULT_ROOT)).expanduser()
        options = self.options(is_test)
        dataset = open_dataset(self.config.name, self.TORCHVISION_CLASS, root, options)
        images = torch.from_numpy(dataset.data)
        if images.shape[-1] == 3:  # (N, H, W, C)
            images = images.permute(0, 3, 1, 2).contiguous()
        labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
        return Split(images, torch.as_tensor(labels).long())

    def prepare(self) -> Sequence[SkippedFile]:
        for is_test in (False, True):
            self.official_sets[is_test] = self.load(is_test)
        return []

    def split(self, name: SplitName) -> Split:
        is_test = name == "test"
        official = self.official_sets.get(is_test) or self.load(is_test)
        if name == "train":  # val needs the same files
            self.official_sets[is_test] = official
        else:
            self.official_sets.pop(is_test, None)  # frees the memory
        if is_test:
            return official
        return train_or_val_split(official, name, self.config.num_val, self.config.split_seed)


class Cifar10(TorchvisionSource):
    """Photographs of 32 x 32 pixels, ten classes. Source: Krizhevsky 2009."""

    TORCHVISION_CLASS = "CIFAR10"
    class_names: Sequence[str] | None = CIFAR10_CLASSES

    @dataclass
    class Config(TorchvisionSource.Config):
        name: str = "cifar10"

    def options(self, is_test: bool) -> Mapping[str, Any]:
        return {"train": not is_test}


class Cifar100(Cifar10):
    """Photographs of 32 x 32 pixels, 100 classes. Source: Krizhevsky 2009."""

    TORCHVISION_CLASS = "CIFAR100"
    class_names = None

    @dataclass
    class Config(TorchvisionSource.Config):
        name: str = "cifar100"


class Svhn(TorchvisionSource):
    """House numbers of 32 x 32 pixels, ten classes; needs SciPy. Source: Netzer et al. 2011."""

    TORCHVISION_CLASS = "SVHN"
    class_names = tuple("0123456789")

    @dataclass
    class Config(TorchvisionSource.Config):
        name: str = "svhn"

    def options(self, is_test: bool) -> Mapping[str, Any]:
        return {"split": "test" if is_test else "train"}


class Stl10(TorchvisionSource):
    """Photographs of 96 x 96 pixels, ten classes. Source: Coates et al. 2011."""

    TORCHVISION_CLASS = "STL10"
    image_shape: ImageShape = (3, 96, 96)

    @dataclass
    class Config(TorchvisionSource.Config):
        name: str = "stl10"
        num_val: int = 500  # validation images, taken from the training images, >= 2
        # false: train on the 5,000 labeled images; true: also on the 100,000 unlabeled ones, which
        # take 2.9 GB of memory
        unlabeled: bool = False

    def options(self, is_test: bool) -> Mapping[str, Any]:
        if is_test:
            return {"split": "test"}
        return {"split": "train+unlabeled" if self.config.unlabeled else "train"}


class CelebA(ImageFolder):
    """Faces, cropped to a square at the center, with the official splits and without classes.

    The images are decoded once into the image cache. `val_fraction`, `test_fraction` and
    `split_seed` have no effect. Source: Liu et al. 2015.
    """

    SPLITS: ClassVar[Mapping[str, SplitName]] = {"0": "train", "1": "val", "2": "test"}

    @dataclass
    class Config(ImageFolder.Config):
        name: str = "celeba"
        root: str = "data"  # folder that contains the folder celeba of torchvision

    @property
    def folder(self) -> Path:
        """Folder of the data files."""
        return Path(self.config.root) / "celeba"

    def prepare(self) -> list[SkippedFile]:
        open_dataset(self.config.name, "CelebA", Path(self.config.root), {"split": "all"})
        self.root = self.folder / "img_align_celeba"
        return super().prepare()

    def read_layout(self, paths: list[str]) -> Layout:
        lines = (self.folder / "list_eval_partition.txt").read_text().splitlines()
        splits = {path: self.SPLITS[number] for path, number in map(str.split, lines)}
        num_missing = len(splits.keys() - set(paths))
        expected = f"all images that are listed in {self.folder / 'list_eval_partition.txt'}"
        require(num_missing == 0, str(self.root), expected, f"{num_missing} missing")
        labels = {path: FolderLabels(splits[path], "") for path in paths if path in splits}
        left_out = [LeftOutFile(path, OUTSIDE_SPLITS) for path in paths if path not in splits]
        return Layout(labels, left_out)
