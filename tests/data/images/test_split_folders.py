import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaegan.data.images.split_folders import FolderLabels, common_split, read_layout


@pytest.mark.parametrize(
    "split, names",
    [
        ("train", ["train", "Training", "trn", "train2017", "train_1", "TRAINSET", "images_train"]),
        ("val", ["val", "valid", "validate", "validation", "eval", "dev", "val2017", "Val-Set"]),
        ("test", ["test", "testing", "tst", "test2017", "test1", "test_images", "03_test"]),
        ("train", ["imagesTr", "训练集", "обучение", "Entraînement", "ＴＲＡＩＮ"]),
        ("val", ["development_set", "验证集", "Validierung", "검증"]),
        ("test", ["imagesTs", "tests", "held-out", "hold_out", "测试数据", "тест", "prueba"]),
        (None, ["Trainers", "station", "attest", "valley", "latest", "contest", "device", "rain"]),
    ],
)
def test_usual_names_of_splits(split, names):
    assert {name: common_split(name) for name in names} == dict.fromkeys(names, split)


def test_accents_may_be_separate_characters():
    assert common_split(unicodedata.normalize("NFD", "entraînement")) == "train"


LAYOUTS = {
    "no folders": (["a.png", "b.png"], [(None, ""), (None, "")]),
    "classes": (["cat/a.png", "dog/x/b.png"], [(None, "cat"), (None, "dog")]),
    "classes in a folder": (["of/cat/a.png", "of/dog/b.png"], [(None, "cat"), (None, "dog")]),
    "splits": (["train/a.png", "valid/b.png", "tst/c/d.png"], ["train", "val", ("test", "c")]),
    "splits of classes": (
        ["train/cat/x/a.png", "val/cat/b.png"],
        [("train", "cat"), ("val", "cat")],
    ),
    "training and testing": (
        ["training/0/a.png", "testing/1/b.png"],
        [("train", "0"), ("test", "1")],
    ),
    "train and validate": (["train/a.png", "validate/b.png"], ["train", "val"]),
    "train and eval": (["train/a.png", "eval/b.png"], ["train", "val"]),
    "COCO": (["train2017/a.png", "val2017/b.png", "test2017/c.png"], ["train", "val", "test"]),
    "capitals": (["TRAIN/a.png", "Test/b.png"], ["train", "test"]),
    "DIV2K": (["DIV2K_train_HR/a.png", "DIV2K_valid_HR/b.png"], ["train", "val"]),
    "CycleGAN": (
        ["trainA/a.png", "testA/b.png", "trainB/c.png", "testB/d.png"],
        ["train", "test", "train", "test"],
    ),
    "split folders that contain themselves": (
        ["seg_train/seg_train/sea/a.png", "seg_test/seg_test/sea/b.png", "seg_test/c.png"],
        [("train", "sea"), ("test", "sea"), "test"],
    ),
    "nnU-Net": (
        ["imagesTr/a.png", "imagesTs/b.png", "labelsTr/a.png"],
        ["train", "test", None],
    ),
    "nouns in the middle": (["trainset_A/a.png", "testset_A/b.png"], ["train", "test"]),
    "Chinese": (["训练数据/猫/a.png", "测试数据/狗/b.png"], [("train", "猫"), ("test", "狗")]),
    "YOLO": (["images/train/a.png", "images/val/b.png"], ["train", "val"]),
    "only train": (["train/cat/a.png", "logo.png"], [("train", "cat"), None]),
    "stray folder and file": (
        ["train/a.png", "val/b.png", "docs/c.png", "d.png"],
        ["train", "val", None, None],
    ),
    "stray folder next to the data set": (
        ["photos/train/cat/a.png", "photos/test/dog/b.png", "samples/c.png", "d.png"],
        [("train", "cat"), ("test", "dog"), None, None],
    ),
    "two folders down": (["x/y/train/a.png", "x/y/dev/b.png", "x/z.png"], ["train", "val", None]),
    "classes of splits": (
        ["cat/train/a.png", "cat/test/b.png", "dog/train/c.png"],
        [("train", "cat"), ("test", "cat"), ("train", "dog")],
    ),
    "test among the training images": (
        ["train/cat/test/a.png", "train/cat/b.png", "test/cat/c.png"],
        [None, ("train", "cat"), ("test", "cat")],
    ),
    "val split with folders of its own": (
        ["a/train/1.png", "a/test/2.png", "val/train/3.png", "val/test/4.png"],
        [("train", "a"), ("test", "a"), None, ("test", "val")],
    ),
    "data set in a folder with the name of a val split": (
        ["dev/train/cat/1.png", "dev/test/dog/2.png", "3.png"],
        [("train", "cat"), ("test", "dog"), None],
    ),
    "class with the name of a val split": (
        ["train/valid/a.png", "train/invalid/b.png", "val/valid/c.png"],
        [("train", "valid"), ("train", "invalid"), ("val", "valid")],
    ),
}


@pytest.mark.parametrize("paths, expected", LAYOUTS.values(), ids=LAYOUTS)
def test_folders_are_splits_or_classes(paths, expected):
    layout = read_layout(paths, None)
    expected = [(item, "") if isinstance(item, str) else item for item in expected]
    assert [layout.labels.get(path) for path in paths] == [
        item and FolderLabels(*item) for item in expected
    ]
    assert not layout.warning
    assert {file.path for file in layout.left_out} == set(paths) - layout.labels.keys()


@pytest.mark.parametrize(
    "paths, name",
    [
        (["val/a.png", "test/b.png"], "test/, val/"),
        (["test/a.png"], "test/"),
        (["cat/a.png", "dog/b.png", "holdout/c.png"], "holdout/"),
        (["train/a.png", "other/test/b.png"], "other/test/"),
        (["train/a.png", "train/eval/b.png"], "train/eval/"),
        (["photos/trip/a.png", "photos/testing/b.png"], "photos/testing/"),
        (["train/a.png", "my_test_data/b.png"], "my_test_data/"),
    ],
)
def test_unclear_layout_is_refused(paths, name):
    with pytest.raises(ValueError, match=rf"^{name} in dataset.root .* dataset.split_folders=true"):
        read_layout(paths, None)
    assert len(read_layout(paths, False).labels) == len(paths)


def test_long_lists_of_unclear_folders_are_shortened():
    paths = [f"{i}/test/a.png" for i in range(9)]
    with pytest.raises(ValueError, match="^0/test/, 1/test/, 2/test/ and 6 more in dataset.root"):
        read_layout(paths, None)


def test_train_among_other_folders_is_a_class_with_a_warning():
    layout = read_layout(["car/a.png", "train/b.png", "bus/c.png"], None)
    assert layout.labels["train/b.png"] == FolderLabels(None, "train")
    assert "the folder train/ is read as a class" in layout.warning


def test_split_folders_true_uses_every_folder_named_as_a_split():
    labels = read_layout(["cat/a.png", "test/cat/b.png", "dog/c.png"], True).labels
    assert list(labels.values()) == [("train", "cat"), ("test", "cat"), ("train", "dog")]
    layout = read_layout(["train/a.png", "x/test/b.png", "logos/c.png"], True)
    assert {path: labels.split for path, labels in layout.labels.items()} == {
        "train/a.png": "train",
        "x/test/b.png": "test",
    }


FOLDERS = [
    "train",
    "Training",
    "val",
    "test",
    "test2017",
    "imagesTs",
    "dev",
    "cat",
    "dog",
    "my_test",
    "...",
]


@given(
    st.lists(st.lists(st.sampled_from(FOLDERS), max_size=4), unique_by=tuple),
    st.sampled_from([None, True]),
)
def test_each_image_has_one_split_or_is_left_out_and_no_held_out_image_is_trained_on(
    folders, setting
):
    paths = ["/".join([*names, "a.png"]) for names in folders]
    try:
        layout = read_layout(paths, setting)
    except ValueError as error:
        assert "split_folders" in str(error) and setting is None
        return
    left_out = [file.path for file in layout.left_out]
    assert sorted([*layout.labels, *left_out]) == sorted(paths)
    assert len({labels.split is None for labels in layout.labels.values()}) < 2, (
        "splits by folder and by content hash are mixed"
    )
    splits = {path: list(map(common_split, path.split("/"))) for path in layout.labels}
    divided = [path for path, labels in layout.labels.items() if labels.split is None]
    assert not any({"val", "test"} & set(splits[path]) for path in divided)
    trained = [path for path, labels in layout.labels.items() if labels.split == "train"]
    for path in trained:
        assert "test" not in splits[path]
        if (
            next(filter(None, splits[path]), None) == "val"
        ):  # allowed if all training images are in it
            folder = path.split("/")[: splits[path].index("val") + 1]
            assert all(other.split("/")[: len(folder)] == folder for other in trained)
