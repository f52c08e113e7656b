"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from vaegan.config import require
from vaegan.data.dataset import ImageSource, Split, SplitName, train_or_val
from vaegan.data.idx import read_idx
from vaegan.data.images.scanning import SkippedFile
from vaegan.images import ImageShape

IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
EMBEDDED_MNIST = Path(__file__).parents[2] / "data" / "mnist"


class IdxSource(ImageSource, abc.ABC):
    """Grayscale 28 x 28 images in four IDX files, gzip-compressed or not."""

    SHA256: ClassVar[dict[str, str]] = {}  # of the unpacked files, where they are known
    TRANSPOSED: ClassVar[bool] = False  # whether the files hold columns first

    @dataclass
    class Config(ImageSource.Config):
        root: str | None = (
            None  # folder of the data; null: data/ in the current folder (mnist: the embedded files)
        )
        num_val: int = 5000  # images of the official training set that validate
        split_seed: int = 0  # of the division into train and val

        def __post_init__(self) -> None:
            super().__post_init__()
            require(self.num_val >= 2, "num_val", "at least 2", self.num_val)

    def __init__(self, config: Any, stems: tuple[str, str] = ("train", "t10k")) -> None:
        self.config = config
        self.stems = stems  # what the names of the training and of the test files begin with

    @property
    def image_shape(self) -> ImageShape:
        return (1, 28, 28)

    @property
    @abc.abstractmethod
    def folders(self) -> list[Path]:
        """Where the files may be."""

    @abc.abstractmethod
    def fetch(self, missing: list[str]) -> None:
        """Bring the missing files, or raise a ValueError that tells the user how."""

    def find(self, name: str) -> Path | None:
        """Path of a file, with or without .gz."""
        paths = (folder / f"{name}{suffix}" for folder in self.folders for suffix in (".gz", ""))
        return next((path for path in paths if path.is_file()), None)

    def read(self, train: bool, kind: str) -> Tensor:
        """Content of one of the four files."""
        name = f"{self.stems[0] if train else self.stems[1]}-{kind}"
        path = self.find(name)
        if path is None:
            raise ValueError(f"dataset={self.config.name}: {name}.gz is not in {self.folders[0]}")
        return read_idx(path, self.SHA256.get(name))

    def prepare(self) -> Sequence[SkippedFile]:
        missing = [
            name
            for stem in self.stems
            for kind in (IMAGES, LABELS)
            if not self.find(name := f"{stem}-{kind}")
        ]
        if missing:
            self.fetch(missing)
        return []

    def split(self, name: SplitName) -> Split:
        images, labels = self.read(name != "test", IMAGES), self.read(name != "test", LABELS)
        if images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise ValueError(
                f"dataset={self.config.name}: {self.folders[0]} has images of shape {tuple(images.shape)} and "
                f"{len(labels)} labels; expected (N, 28, 28) and N"
            )
        images = images.mT.contiguous() if self.TRANSPOSED else images
        official = Split(images.unsqueeze(1), labels.long())
        return (
            official
            if name == "test"
            else train_or_val(official, name, self.config.num_val, self.config.split_seed)
        )


class Mnist(IdxSource):
    """Handwritten digits, embedded in this repository with their checksums: data/mnist."""

    @dataclass
    class Config(IdxSource.Config):
        name: str = "mnist"

    CLASSIFIER: ClassVar[str | None] = "mnist"
    SHA256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }

    @property
    def folders(self) -> list[Path]:
        return [Path(self.config.root).expanduser() if self.config.root else EMBEDDED_MNIST]

    def fetch(self, missing: list[str]) -> None:
        raise ValueError(
            f"dataset=mnist: {self.folders[0] / missing[0]}.gz is missing; restore it (git checkout data/mnist), "
            "or set dataset.root to a folder with MNIST's four .gz files"
        )


class TorchvisionSource(IdxSource, abc.ABC):
    """Read from dataset.root where the files are there, else downloaded into it by torchvision.

    Args:
        config: Of the data set.
        torchvision_name: Name of its class in torchvision.datasets.
        options: Further arguments of that class.
        stems: What the names of the training and of the test files begin with.
    """

    def __init__(
        self,
        config: Any,
        torchvision_name: str,
        options: dict[str, str] | None = None,
        stems: tuple[str, str] = ("train", "t10k"),
    ) -> None:
        super().__init__(config, stems)
        self.torchvision_name, self.options = torchvision_name, options or {}

    @property
    def folders(self) -> list[Path]:
        root = Path(self.config.root or "data").expanduser()
        return [root, root / self.torchvision_name / "raw"]

    def fetch(self, missing: list[str]) -> None:
        import torchvision.datasets  # late: it takes seconds, and a typo shall not wait for it

        try:
            getattr(torchvision.datasets, self.torchvision_name)(
                self.folders[0], download=True, **self.options
            )
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"dataset={self.config.name}: {missing[0]}.gz is neither in {self.folders[0]} nor in "
                f"{self.folders[1]}, and the download failed ({str(error).strip()}); set dataset.root to the folder "
                "that has it"
            ) from error


class FashionMnist(TorchvisionSource):
    """Clothes in ten classes. Source: Xiao et al. 2017, arXiv:1708.07747."""

    CLASSIFIER: ClassVar[str | None] = "fashion_mnist"

    @dataclass
    class Config(IdxSource.Config):
        name: str = "fashion_mnist"

    def __init__(self, config: Config) -> None:
        super().__init__(config, "FashionMNIST")


class Kmnist(TorchvisionSource):
    """Cursive Japanese characters in ten classes. Source: Clanuwat et al. 2018, arXiv:1812.01718."""

    @dataclass
    class Config(IdxSource.Config):
        name: str = "kmnist"

    def __init__(self, config: Config) -> None:
        super().__init__(config, "KMNIST")


class Emnist(TorchvisionSource):
    """Letters and digits. Source: Cohen et al. 2017, arXiv:1702.05373."""

    TRANSPOSED: ClassVar[bool] = True
    SUBSETS: ClassVar[tuple[str, ...]] = (
        "balanced",
        "byclass",
        "bymerge",
        "letters",
        "digits",
        "mnist",
    )

    @dataclass
    class Config(IdxSource.Config):
        name: str = "emnist"
        subset: str = "balanced"  # balanced, byclass, bymerge, letters, digits or mnist

        def __post_init__(self) -> None:
            super().__post_init__()
            require(
                self.subset in Emnist.SUBSETS,
                "subset",
                f"one of {', '.join(Emnist.SUBSETS)}",
                self.subset,
            )

    def __init__(self, config: Config) -> None:
        stem = f"emnist-{config.subset}"
        super().__init__(
            config, "EMNIST", {"split": config.subset}, (f"{stem}-train", f"{stem}-test")
        )
