import pytest
import torch

from benchmarks.metric_sensitivity import (
    DAMAGES,
    build_extractor,
    damaged_images,
    print_table,
    repeat_first,
)
from vaegan.data.dataset import ImageSource
from vaegan.images import to_float
from vaegan.metrics.digits_cnn import DigitsCnn
from vaegan.metrics.real_statistics import classify
from vaegan.metrics.sample_scores import FeatureBatch
from vaegan.metrics.scores import class_scores, frechet_distance, manifold_scores

EVERY_FOURTH = slice(0, 10_000, 4)
SUBTLE = (
    "shifted by 2 pixels",
    "gamma 1.5",
    "contrast x 0.8",
    "a white pixel in each image",
    "1/20 of the images, 20 times",
)


@pytest.fixture(scope="module")
def mnist():
    return ImageSource.choices["mnist"].Config().build()


@pytest.fixture(scope="module")
def network(mnist):
    return build_extractor(mnist, None)


@pytest.fixture(scope="module")
def features(mnist, network):
    """Return features of test images, of training images, and of damaged training images."""
    images = to_float(mnist.split("train").images[EVERY_FOURTH])
    batches = {"test": to_float(mnist.split("test").images[EVERY_FOURTH]), "train": images}
    batches |= {name: DAMAGES[name](images) for name in SUBTLE if "20 times" not in name}
    found = {name: network(batch) for name, batch in batches.items()}
    return found | {"1/20 of the images, 20 times": repeat_first(found["train"])}


def distance_ratio(features, name, columns=slice(None)):
    """Return the Frechet distance of damaged images over the real-data baseline."""
    real, other, damaged = (
        FeatureBatch(features[key][:, columns]) for key in ("test", "train", name)
    )
    return frechet_distance(real, damaged) / frechet_distance(real, other)


@pytest.mark.parametrize("name", SUBTLE)
def test_damaged_digits_score_five_times_the_baseline(features, name):
    assert distance_ratio(features, name) > 5


@pytest.mark.parametrize("name", ["gamma 1.5", "a white pixel in each image"])
def test_classifier_alone_misses_the_damage(features, name):
    assert distance_ratio(features, name, slice(DigitsCnn.NUM_HIDDEN)) < 2


def test_repeated_images_have_a_low_recall(features):
    real, repeated = (
        FeatureBatch(features[key]) for key in ("test", "1/20 of the images, 20 times")
    )
    assert manifold_scores(real, repeated)["recall"] < 0.01


def test_missing_class_is_seen(mnist, network, features):
    train = mnist.split("train")
    is_kept = torch.as_tensor(train.labels[EVERY_FOURTH]) != 4
    real, fake = classify(network, features["test"]), classify(network, features["train"][is_kept])
    scores = class_scores(real, fake)
    assert scores["class_kl"] > 0.05
    assert frechet_distance(real, fake) > 4 * frechet_distance(
        real, FeatureBatch(features["train"])
    )


def test_damages_keep_shape_and_range(mnist):
    images = damaged_images(mnist.split("train"), 100)
    original = images.pop("real images")
    assert set(images) == {*DAMAGES, "one class missing"}
    for name, damaged in images.items():
        assert damaged.shape == original.shape and 0 <= damaged.min() and damaged.max() <= 1
        assert not torch.equal(damaged, original), name


def test_table_has_a_row_for_each_damage(mnist, network, capsys):
    print_table(network, mnist, 120)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mnist, digits_cnn, 100 features, 120 images"
    assert len(lines) == 4 + 1 + len(DAMAGES) + 1
    assert lines[4].startswith("| real images | ") and "| 1.0 |" in lines[4]
