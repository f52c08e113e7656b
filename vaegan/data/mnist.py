"""MNIST, and data sets in the same format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vaegan.config import require
from vaegan.data.idx import IdxSource
from vaegan.runtime.bundled_files import bundled_folder

EMBEDDED_MNIST = bundled_folder("data/mnist")
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
EMNIST_SUBSETS = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")


class Mnist(IdxSource):
    """Handwritten digits, embedded in this repository (data/mnist) and verified by checksum."""

    CLASSIFIER: ClassVar[str | None] = "mnist"
    DEFAULT_ROOT: ClassVar[str | None] = None  # the embedded files
    SHA256: ClassVar[dict[str, str]] = MNIST_SHA256
    LICENSE: ClassVar[str | None] = "CC BY-SA 3.0"
    class_names = tuple("0123456789")

    @dataclass
    class Config(IdxSource.Config):
        name: str = "mnist"

    @property
    def folders(self) -> list[Path]:
        return [Path(self.config.root).expanduser() if self.config.root else EMBEDDED_MNIST]

    def download(self, missing: str) -> None:
        raise ValueError(
            f"dataset=mnist: {self.folders[0] / missing} is missing; restore it (git checkout "
            "data/mnist), or set dataset.root to a folder with the four .gz files of MNIST"
        )


class FashionMnist(IdxSource):
    """Articles of clothing, ten classes. Source: Xiao et al. 2017, arXiv:1708.07747."""

    CLASSIFIER: ClassVar[str | None] = "fashion_mnist"
    TORCHVISION_CLASS = "FashionMNIST"
    LICENSE: ClassVar[str | None] = "MIT"
    class_names = FASHION_CLASSES

    @dataclass
    class Config(IdxSource.Config):
        name: str = "fashion_mnist"


class Kmnist(IdxSource):
    """Cursive Japanese characters, ten classes. Source: Clanuwat et al. 2018, arXiv:1812.01718."""

    TORCHVISION_CLASS = "KMNIST"
    LICENSE: ClassVar[str | None] = "CC BY-SA 4.0"

    @dataclass
    class Config(IdxSource.Config):
        name: str = "kmnist"


class Emnist(IdxSource):
    """Letters and digits. Source: Cohen et al. 2017, arXiv:1702.05373."""

    TORCHVISION_CLASS = "EMNIST"
    IS_TRANSPOSED = True

    @dataclass
    class Config(IdxSource.Config):
        name: str = "emnist"
        # EMNIST subset: balanced, byclass, bymerge, letters, digits or mnist
        subset: str = "balanced"

        def __post_init__(self) -> None:
            super().__post_init__()
            expected = f"one of {', '.join(EMNIST_SUBSETS)}"
            require(self.subset in EMNIST_SUBSETS, "subset", expected, self.subset)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.file_prefixes = (f"emnist-{config.subset}-train", f"emnist-{config.subset}-test")
        self.torchvision_options = {"split": config.subset}
