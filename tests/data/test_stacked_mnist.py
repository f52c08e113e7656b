import pytest
import torch

from vaegan.data.dataset import ImageSource
from vaegan.data.mnist import FashionMnist, Mnist
from vaegan.data.stacked_mnist import StackedMnist

SPLITS = ("train", "val", "test")
SIZES = {"num_train": 300, "num_val": 50, "num_test": 200}


@pytest.fixture(scope="module")
def stacked():
    return {name: StackedMnist.Config(**SIZES).build().split(name) for name in SPLITS}


@pytest.fixture(scope="module")
def digits():
    """Classes of the MNIST images of each split, by the bytes of the image."""
    source = Mnist.Config().build()
    classes = {}
    for name in SPLITS:
        images, labels, _ = source.split(name)
        keys = map(bytes, images.flatten(1).numpy())
        classes[name] = dict(zip(keys, labels.tolist(), strict=True))
    return classes


def test_images_are_color_and_the_choice_is_registered(stacked):
    assert ImageSource.choices["stacked_mnist"] is StackedMnist
    source = StackedMnist.Config(**SIZES).build()
    source.prepare()
    for name, num in zip(SPLITS, SIZES.values(), strict=True):
        images, labels, _ = stacked[name]
        assert (
            images.shape == (num, *source.image_shape) == (num, 3, 28, 28)
            and images.dtype == torch.uint8
        )
        assert labels.shape == (num,) and labels.dtype == torch.int64
        assert images.is_contiguous()


@pytest.mark.parametrize("name", SPLITS)
def test_channels_are_digits_of_the_same_split_and_give_the_label(stacked, digits, name):
    images, labels, _ = stacked[name]
    for image, label in zip(images, labels.tolist(), strict=True):
        a, b, c = (digits[name][bytes(channel.flatten().numpy())] for channel in image)
        assert label == 100 * a + 10 * b + c


def test_no_digit_is_in_two_splits(stacked):
    channels = [
        set(map(bytes, stacked[name].images.flatten(0, 1).flatten(1).numpy())) for name in SPLITS
    ]
    assert (
        not channels[0] & channels[1]
        and not channels[0] & channels[2]
        and not channels[1] & channels[2]
    )


def test_channels_are_independent_and_all_modes_occur():
    labels = StackedMnist.Config(num_test=26_000).build().split("test").labels
    counts = torch.bincount(labels, minlength=1000)
    assert len(counts) == 1000 and (counts > 0).all()
    frequencies = torch.bincount(Mnist.Config().build().split("test").labels) / 10_000
    expected = 26_000 * torch.einsum("a,b,c->abc", frequencies, frequencies, frequencies).flatten()
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 1000 + 5 * 2000**0.5  # chi-squared, 999 degrees of freedom


def test_images_are_a_function_of_the_seed(stacked):
    again = StackedMnist.Config(**SIZES).build().split("val")
    assert torch.equal(again.images, stacked["val"].images) and torch.equal(
        again.labels, stacked["val"].labels
    )
    other = StackedMnist.Config(**SIZES, data_seed=1).build().split("val")
    assert not torch.equal(other.images, stacked["val"].images)


@pytest.mark.parametrize("key, minimum", [("num_train", 1), ("num_val", 2), ("num_test", 1)])
def test_invalid_sizes_raise(key, minimum):
    with pytest.raises(ValueError, match=f"{key} must be at least {minimum}; got {minimum - 1}"):
        StackedMnist.Config(**{key: minimum - 1})


def test_missing_mnist_files_raise_with_a_remedy(tmp_path):
    source = StackedMnist.Config(root=str(tmp_path)).build()
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\.gz is missing; .*set dataset\.root"
    ):
        source.prepare()


def test_data_sets_name_the_classifier_of_their_classes():
    assert (Mnist.CLASSIFIER, FashionMnist.CLASSIFIER, StackedMnist.CLASSIFIER) == (
        "mnist",
        "fashion_mnist",
        "mnist",
    )
    assert ImageSource.CLASSIFIER is None and ImageSource.choices["kmnist"].CLASSIFIER is None
