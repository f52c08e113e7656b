import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scripts.train_digits_cnn import RECIPES, Recipe, augment, set_scales
from vaegan.data.dataset import ImageSource, Split
from vaegan.images import to_float
from vaegan.metrics.digits_cnn import (
    DATASETS,
    FEATURE_GROUPS,
    WEIGHTS_DIR,
    DigitsCnn,
    load_digits_cnn,
    pixel_statistics,
)

TEST_ACCURACY = {"mnist": 0.994, "fashion_mnist": 0.93}


@pytest.fixture(scope="module")
def mnist_test():
    images, labels, _ = ImageSource.choices["mnist"].Config().build().split("test")
    return to_float(images[:2000]), labels[:2000]


@pytest.mark.parametrize("name", DATASETS)
def test_shipped_weights_are_small_and_have_metadata(name):
    path = WEIGHTS_DIR / f"{name}.safetensors"
    assert path.stat().st_size < 1_000_000
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["dataset"] == name and name in RECIPES
    assert float(metadata["test_accuracy"]) >= TEST_ACCURACY[name]


@pytest.mark.parametrize("name", DATASETS)
def test_loaded_network_is_frozen_and_finite(name):
    state = torch.get_rng_state()
    net = load_digits_cnn(name)
    assert torch.equal(torch.get_rng_state(), state)  # loading does not change training
    images = torch.rand(5, 1, 28, 28)
    assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
    assert net(images).shape == (5, DigitsCnn.NUM_CLASSES) and net(images).isfinite().all()
    features = net.features(images)
    assert features.shape == (5, DigitsCnn.NUM_FEATURES) and features.isfinite().all()
    torch.testing.assert_close(net(images)[:2], net(images[:2]))  # independent of the other images
    torch.testing.assert_close(net.classify(features), net(images))


def test_mnist_weights_classify_digits_and_have_no_dead_features(mnist_test):
    net, (images, labels) = load_digits_cnn("mnist"), mnist_test
    hidden = net.penultimate(images)
    assert (net(images).argmax(1) == labels).float().mean() > 0.99
    assert (hidden > 0).float().mean(0).min() > 0.01 and hidden.std(0).min() > 0.01


def group_variances(features):
    """Return the total variance of each of FEATURE_GROUPS."""
    sizes = [group.size for group in FEATURE_GROUPS.values()]
    return torch.stack([part.sum() for part in features.var(0).split(sizes)])


def test_shipped_scales_give_the_groups_their_variances(mnist_test):
    variances = group_variances(load_digits_cnn("mnist").features(mnist_test[0]))
    expected = torch.tensor([group.variance for group in FEATURE_GROUPS.values()])
    assert expected.sum() == 100
    torch.testing.assert_close(variances, expected, rtol=0.15, atol=0)


def test_set_scales_gives_the_groups_their_variances():
    images = torch.randint(256, (60, 1, 28, 28), dtype=torch.uint8)
    net = DigitsCnn()
    set_scales(net, Split(images, torch.zeros(60).long()))
    expected = torch.tensor([group.variance for group in FEATURE_GROUPS.values()])
    with torch.no_grad():
        torch.testing.assert_close(group_variances(net.features(to_float(images))), expected)


def test_pixel_statistics_of_a_white_pixel():
    images = torch.zeros(2, 1, 28, 28)
    images[1, 0, 8, 20] = 1  # second row and third column of cells; upper right quadrant
    intensity, edges, sharpness = pixel_statistics(images)[1].split([16, 16, 4])
    assert not pixel_statistics(images)[0].any()
    expected = torch.zeros(4, 4)
    expected[1, 2] = 1 / 49
    torch.testing.assert_close(intensity.view(4, 4), expected)
    assert edges.view(4, 4)[1, 2] > 2 / 49 and edges.count_nonzero() == 2  # the cell to the right
    assert sharpness.tolist() == [0, 2, 0, 0]


def test_wrong_weights_and_names_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="weights for mnist and fashion_mnist; got 'kmnist'"):
        load_digits_cnn("kmnist")
    with pytest.raises(
        ValueError, match="absent.safetensors must contain the weights of a DigitsCnn"
    ):
        load_digits_cnn("mnist", tmp_path / "absent.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="damaged.safetensors must contain"):
        load_digits_cnn("mnist", tmp_path / "damaged.safetensors")
    save_file(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError,
        match="(?s)other.safetensors must contain.*Missing key.*train_digits_cnn.py mnist",
    ):
        load_digits_cnn("mnist", tmp_path / "other.safetensors")


def test_images_of_another_shape_are_rejected():
    with pytest.raises(ValueError, match=r"\(B, 1, 28, 28\); got \(2, 3, 32, 32\)"):
        DigitsCnn()(torch.rand(2, 3, 32, 32))


def test_augmentation_is_the_identity_or_a_horizontal_flip():
    images = torch.rand(40, 1, 28, 28)
    identity = Recipe(epochs=1, degrees=0, scale=0, shift=0, flip=False, hole=0)
    torch.testing.assert_close(augment(images, identity), images)
    augmented = augment(images, Recipe(epochs=1, degrees=0, scale=0, shift=0, flip=True, hole=0))
    is_unchanged = (augmented - images).abs().amax((1, 2, 3)) < 1e-4
    is_flipped = (augmented - images.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (is_unchanged | is_flipped).all() and 0 < is_unchanged.sum() < 40


def test_hole_covers_part_of_an_image():
    recipe = Recipe(epochs=1, degrees=0, scale=0, shift=0, flip=False, hole=7)
    num_covered = (augment(torch.ones(40, 1, 28, 28), recipe) < 0.5).sum((1, 2, 3))
    assert 0 < num_covered.min() and num_covered.max() <= 49
