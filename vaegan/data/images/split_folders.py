"""Splits and classes of images, from the names of the folders that contain them.

A folder is a split folder if it has a common name of a split, such as train, Training, val2017 or
test_images, and if a folder for training and one for val or test lie at the same depth. Names that
differ only in the word for the split, such as DIV2K_train_HR and DIV2K_valid_HR, count too.

    photos/train/cat/1.png         split train, class cat
    photos/test/cat/2.png          split test, class cat
    samples/3.png                  outside the split folders, not used

    cat/train/1.png                split train, class cat
    cat/test/2.png                 split test, class cat

A single training folder is a split too. Any other layout with a folder that has a common name of a
val or test split is rejected, so that no images of a test split are trained on.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vaegan.data.images.left_out import HELD_OUT_IN_TRAINING, OUTSIDE_SPLITS, LeftOutFile

SPLIT_WORDS = {
    "train": "train training trn trainval imagestr",
    "val": "val valid validate validation validating eval evaluation dev development imagesva",
    "test": "test tests testing tst imagests holdout hold-out hold_out heldout held-out held_out",
}
WORDS_OF_OTHER_LANGUAGES = {  # Chinese, French, Japanese, Korean, Portuguese, Russian, Spanish
    "train": "训练 訓練 entraînement apprentissage 学習 훈련 학습 treino обучение entrenamiento",
    "val": "验证 驗證 検証 검증 validação валидация validación validierung",
    "test": "测试 測試 テスト 테스트 teste тест prueba",
}
SPLIT_BY_WORD = {
    word: split
    for words_by_split in (SPLIT_WORDS, WORDS_OF_OTHER_LANGUAGES)
    for split, words in words_by_split.items()
    for word in words.split()
}
WORD = "|".join(SPLIT_BY_WORD)
NOUN = "set|split|data|dataset|img|imgs|image|images|集|数据|数据集|データ"
SEPARATOR = "[-_. ]?"
COMMON_NAME = re.compile(  # in lower case: train, training_set, images-val, test2017, 01_train
    rf"(\d+{SEPARATOR})?({NOUN})?{SEPARATOR}({WORD}){SEPARATOR}({NOUN})?{SEPARATOR}\d*"
)
WORD_IN_NAME = re.compile(  # not in lower case: DIV2K_train_HR, trainA, horsesTest
    rf"(?:(?<![A-Za-zА-я])|(?<=[a-z])(?=[A-Z]))((?i:{WORD}))(?i:{NOUN})?(?![a-zа-я])"
)
MAX_LISTED = 3  # folders in a message


class FolderLabels(NamedTuple):
    """Split and class of an image, from the folders that contain it."""

    split: str | None  # train, val or test; None: assigned by content hash
    class_name: str  # empty if the image has no class folder


class Layout(NamedTuple):
    """Splits and classes of the images of a folder."""

    labels: dict[str, FolderLabels]  # by path, of the images that are used
    left_out: list[LeftOutFile]  # all other images
    warning: str = ""  # how an ambiguous layout was read; empty for a clear one


def read_layout(paths: Sequence[str], split_folders: bool | None) -> Layout:
    """Assign splits and classes to images by their folders.

    Args:
        paths: Paths of all images, separated by "/".
        split_folders: True if each folder with a common name of a split is a split, False if none
            is. None to decide by the layout.

    Raises:
        ValueError: It is unclear whether a folder is a val or test split.
    """
    folders = {path: path.split("/")[:-1] for path in paths}
    if split_folders is False:
        return label_classes(folders)
    max_depth = max(map(len, folders.values()), default=0)
    for depth in range(max_depth):
        names = {names[depth] for names in folders.values() if len(names) > depth}
        split_by_name = find_split_folders(names)
        if split_by_name:
            return label_splits(folders, depth, split_by_name)
    if split_folders:
        return label_by_names(folders)
    check_for_held_out_folders(folders)
    shared = common_folders(names for names in folders.values() if names)
    for depth, name in enumerate(shared):
        if common_split(name) == "train":
            return label_splits(folders, depth, {name: "train"})
    return label_classes(folders)


def common_split(name: str) -> str | None:
    """Return the split that a folder name commonly denotes; None for any other name."""
    match = COMMON_NAME.fullmatch(normalize(name).casefold())
    return SPLIT_BY_WORD[match[3]] if match else None


def split_in_name(name: str) -> str | None:
    """Return the split denoted by the first word for a split in a folder name, or None."""
    match = WORD_IN_NAME.search(normalize(name))
    return SPLIT_BY_WORD[match[1].casefold()] if match else None


def normalize(name: str) -> str:
    """Return a folder name in one Unicode form: macOS stores accents as separate characters."""
    return unicodedata.normalize("NFKC", name)


def find_split_folders(names: Iterable[str]) -> dict[str, str]:
    """Return the splits of the split folders at one depth, by folder name.

    The result is empty unless there is a folder for training and one for val or test. Both must
    have common names of splits, or names that differ only in the word for the split.
    """
    groups: dict[str, dict[str, str]] = {}  # splits of names that differ only in the word
    for name in names:
        split = common_split(name) or split_in_name(name)
        if split:
            rest = "" if common_split(name) else WORD_IN_NAME.sub("*", normalize(name)).casefold()
            groups.setdefault(rest, {})[name] = split
    found: dict[str, str] = {}
    for split_by_name in groups.values():
        splits = set(split_by_name.values())
        if "train" in splits and len(splits) > 1:
            found |= split_by_name
    return found | groups.get("", {}) if found else {}


def label_splits(
    folders: Mapping[str, list[str]], depth: int, split_by_name: Mapping[str, str]
) -> Layout:
    """Label images by the split folders at one depth."""
    splits = {
        path: split_by_name[names[depth]]
        for path, names in folders.items()
        if len(names) > depth and names[depth] in split_by_name
    }
    above = {path: folders[path][:depth] for path in splits}
    is_below = len(common_folders(above.values())) == depth
    class_names = {path: folder_below(folders[path], depth) for path in splits}
    return make_layout(folders, splits, class_names if is_below else folders_below_shared(above))


def folder_below(names: Sequence[str], depth: int) -> str:
    """Return the folder below a split folder; skip repetitions, as of train in train/train/cat/."""
    below = itertools.dropwhile(lambda name: name == names[depth], names[depth + 1 :])
    return next(below, "")


def label_by_names(folders: Mapping[str, list[str]]) -> Layout:
    """Label images by the outermost folder named as a split.

    If no folder is named for training, all other images are training images.
    """
    splits = {}
    for path, names in folders.items():
        found = [split for name in names if (split := common_split(name) or split_in_name(name))]
        if found:
            splits[path] = found[0]
    if "train" not in splits.values():
        splits = {path: splits.get(path, "train") for path in folders}
    others = {path: [name for name in folders[path] if not split_in_name(name)] for path in splits}
    return make_layout(folders, splits, folders_below_shared(others))


def label_classes(folders: Mapping[str, list[str]]) -> Layout:
    """Label images by their outermost folder, below the folders that contain all images."""
    class_names = folders_below_shared(folders)
    training = sorted({name for name in class_names.values() if common_split(name) == "train"})
    warning = ""
    if training:
        warning = (
            f"the folder {training[0]}/ is read as a class, because there is no folder for val or "
            "test; set dataset.split_folders=true to train only on its images"
        )
    labels = {path: FolderLabels(None, class_names[path]) for path in folders}
    return Layout(labels, [], warning)


def make_layout(
    folders: Mapping[str, list[str]], splits: Mapping[str, str], class_names: Mapping[str, str]
) -> Layout:
    """Return the layout of images with known splits, without held-out training images."""
    layout = Layout({}, [])
    training = [names for path, names in folders.items() if splits.get(path) == "train"]
    num_shared = len(common_folders(training))
    for path, names in folders.items():
        if path not in splits:
            layout.left_out.append(LeftOutFile(path, OUTSIDE_SPLITS))
        elif splits[path] == "train" and is_held_out(names, num_shared):
            layout.left_out.append(LeftOutFile(path, HELD_OUT_IN_TRAINING))
        else:
            layout.labels[path] = FolderLabels(splits[path], class_names[path])
    return layout


def is_held_out(names: Sequence[str], num_shared: int) -> bool:
    """True if an image in a training folder may belong to a val or test split.

    It does if one of its folders is named for test, or if the outermost one named as a split is
    for val, except for the first `num_shared` folders, which contain all training images.
    """
    splits = [common_split(name) for name in names]
    outermost = next(filter(None, splits[num_shared:]), None)
    return "test" in splits or ("train" not in splits[:num_shared] and outermost == "val")


def check_for_held_out_folders(folders: Mapping[str, list[str]]) -> None:
    """Raise a ValueError if a folder may be a val or test split.

    Such a folder has a common name of a split, or its name contains a word for val or test while
    the name of another folder contains a word for train.
    """
    has_training = any("train" in map(split_in_name, names) for names in folders.values())
    held_out = set()
    for names in folders.values():
        for depth, name in enumerate(names, 1):
            split = common_split(name) or (split_in_name(name) if has_training else None)
            if split in ("val", "test"):
                held_out.add("/".join(names[:depth]) + "/")
                break
    if held_out:
        listed = ", ".join(map(printable, sorted(held_out)[:MAX_LISTED]))
        more = f" and {len(held_out) - MAX_LISTED} more" if len(held_out) > MAX_LISTED else ""
        raise ValueError(
            f"{listed}{more} in dataset.root may be a val or test split, but no training folder "
            "with a similar name lies next to it. Set dataset.split_folders=true to use it as a "
            "split, or dataset.split_folders=false if all folders are classes"
        )


def printable(name: str) -> str:
    """Return a name of a file or folder, with escape sequences for control characters."""
    return name if name.isprintable() else ascii(name)[1:-1]


def common_folders(folders: Iterable[list[str]]) -> list[str]:
    """Return the outermost folders that all images share."""
    return list(os.path.commonprefix(list(folders)))


def folders_below_shared(folders: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the outermost folder of each image below the shared ones; empty if there is none."""
    depth = len(common_folders(folders.values()))
    return {path: "".join(names[depth : depth + 1]) for path, names in folders.items()}
