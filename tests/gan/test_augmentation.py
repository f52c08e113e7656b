"""Tests of all registered augmentations and of each transformation of DiffAugment."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from vaegan.gan.augmentation import (
    TRANSFORMATIONS,
    AdaptiveProbability,
    Augmentation,
    DiffAugment,
    NoAugmentation,
    draw_integers,
)
from vaegan.gan.penalties import squared_gradient

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 13, 21), (3, 5, 31), (2, 4, 4), (4, 9, 6)]
POLICIES = [[name] for name in TRANSFORMATIONS] + [list(TRANSFORMATIONS)]


def augment(policy, images, probability=1.0):
    return DiffAugment.Config(policy=policy).build()(images, probability)


def count_changed_images(images, augmented):
    return int((images != augmented).flatten(1).any(1).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("probability", [0.5, torch.tensor(1.0)])
@pytest.mark.parametrize("name", sorted(Augmentation.choices))
def test_output_keeps_shape_and_dtype_and_is_finite(name, shape, probability):
    images = torch.rand(6, *shape)
    augmented = Augmentation.choices[name].Config().build()(images, probability)
    assert augmented.shape == images.shape and augmented.dtype == images.dtype
    assert augmented.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES)
def test_transformations_accept_all_image_shapes(policy, shape):
    augmented = augment(policy, torch.rand(6, *shape))
    assert augmented.shape == (6, *shape) and augmented.isfinite().all()


@pytest.mark.parametrize("name", sorted(Augmentation.choices))
def test_probability_zero_returns_the_images_unchanged(name):
    images = torch.rand(50, 3, 8, 8)
    augmentation = Augmentation.choices[name].Config().build()
    assert torch.equal(augmentation(images, 0.0), images)
    assert torch.equal(augmentation(images, torch.tensor(0.0)), images)


@pytest.mark.parametrize("name", sorted(Augmentation.choices))
def test_augmentations_have_no_state(name):
    augmentation = Augmentation.choices[name].Config().build()
    augmentation(torch.rand(2, 1, 8, 8), 1.0)
    assert not augmentation.state_dict() and not list(augmentation.parameters())


@pytest.mark.parametrize("name", sorted(Augmentation.choices))
def test_default_configs_have_a_constant_probability(name):
    config = Augmentation.choices[name].Config()
    assert 0 <= config.probability <= 1
    assert config.adaptive_target is None
    assert config.adaptive_images >= 1


def test_no_augmentation_returns_its_input():
    images = torch.rand(2, 1, 8, 8)
    assert NoAugmentation.Config().build()(images, 1.0) is images
    assert NoAugmentation.Config().probability == 0
    with pytest.raises(TypeError, match="probability"):
        NoAugmentation.Config(probability=0.5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_match_finite_differences(policy, channels):
    augmentation = DiffAugment.Config(policy=policy).build()

    def seeded(images):
        torch.manual_seed(1)
        return augmentation(images, 0.7)

    images = torch.rand(3, channels, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: seeded(x).square(), images, fast_mode=True)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_flow_at_black_and_white_pixels(value):
    images = torch.full((8, 3, 8, 8), value, requires_grad=True)
    augment(["saturation", "contrast", "brightness"], images).sum().backward()
    assert (images.grad > 0).all()


def test_r1_gradients_flow_through_the_augmentation():
    augmentation = DiffAugment.Config(policy=list(TRANSFORMATIONS)).build()
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 1), nn.Flatten(0)
    )
    penalty = squared_gradient(lambda x: network(augmentation(x, 1.0)), torch.rand(5, 3, 8, 8))
    penalty.mean().backward()
    assert penalty.shape == (5,) and (penalty > 0).all()
    weights = [network[0].weight, network[3].weight]
    assert all(weight.grad.isfinite().all() and weight.grad.count_nonzero() for weight in weights)


@pytest.mark.parametrize("policy", POLICIES)
def test_global_seed_determines_the_output(policy):
    images = torch.rand(20, 3, 16, 16)
    augmentation = DiffAugment.Config(policy=policy).build()
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(augmentation(images, 0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("policy", POLICIES)
def test_images_of_a_batch_get_different_random_numbers(policy):
    augmented = augment(policy, torch.rand(1, 3, 16, 16).expand(10, -1, -1, -1))
    assert len(torch.unique(augmented.flatten(1), dim=0)) > 5


@pytest.mark.parametrize("policy", POLICIES[:-1])
@pytest.mark.parametrize("probability", [0.2, torch.tensor(0.7)])
def test_fraction_of_changed_images_matches_the_probability(policy, probability):
    images = torch.rand(4000, 3, 8, 8)
    fraction = count_changed_images(images, augment(policy, images, probability)) / 4000
    # A translation by -1, 0 or 1 pixels in each direction is the identity in 1 of 9 cases.
    fraction_visible = 1 - 1 / 9 if policy == ["translation"] else 1.0
    expected = float(probability) * fraction_visible
    assert fraction == pytest.approx(expected, abs=5 * (0.25 / 4000) ** 0.5)


def test_transformations_are_applied_independently():
    """Contrast changes the difference of two pixels, brightness changes their mean."""
    images = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2).expand(4000, -1, -1, -1)
    augmented = augment(["contrast", "brightness"], images, 0.5)
    factor = (augmented[:, 0, 0, 1] - augmented[:, 0, 0, 0]) / 0.4
    is_contrast = (factor - 1).abs() > 1e-5
    is_brightness = (augmented.mean((1, 2, 3)) - 0.4).abs() > 1e-5
    counts = torch.bincount(2 * is_contrast.long() + is_brightness.long(), minlength=4)
    assert (counts - 1000).abs().max() < 5 * (4000 * 3 / 16) ** 0.5


def test_real_and_fake_images_get_the_same_distribution():
    """Equal halves of a batch get different random numbers with the same distribution."""
    images = torch.rand(1, 3, 8, 8).expand(3000, -1, -1, -1)
    real, fake = augment(list(TRANSFORMATIONS), torch.cat([images, images]), 0.8).chunk(2)
    assert count_changed_images(real, fake) > 2500
    for moment in (1, 2):
        values = [half.flatten(1).mean(1) ** moment for half in (real, fake)]
        error = (sum(value.var() for value in values) / 3000).sqrt()
        assert (values[0].mean() - values[1].mean()).abs() < 5 * error


def test_brightness_adds_a_constant():
    images = torch.rand(500, 1, 4, 4)
    added = (augment(["brightness"], images) - images).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    assert -0.25 <= added.min() < -0.24 and 0.24 < added.max() <= 0.25


def test_contrast_scales_the_differences_to_the_mean_of_the_image():
    images = torch.rand(500, 2, 4, 4)
    mean = images.mean((1, 2, 3), keepdim=True)
    assert_scaled(images, mean, augment(["contrast"], images), 0.5, 1.5)


@pytest.mark.parametrize("channels", [2, 3])
def test_saturation_scales_the_differences_to_the_mean_of_the_channels(channels):
    images = torch.rand(500, channels, 4, 4)
    mean = images.mean(1, keepdim=True)
    assert_scaled(images, mean, augment(["saturation"], images), 0.0, 2.0)


def assert_scaled(images, mean, augmented, low, high):
    """Check that each image became mean + c (image - mean), with c from low to high."""
    torch.testing.assert_close(augmented.mean((1, 2, 3)), images.mean((1, 2, 3)))
    difference = images - mean
    factor = ((augmented - mean) * difference).sum((1, 2, 3)) / difference.square().sum((1, 2, 3))
    torch.testing.assert_close(augmented, mean + factor.view(-1, 1, 1, 1) * difference)
    assert low - 1e-5 <= factor.min() < low + 0.02 and high - 0.02 < factor.max() <= high + 1e-5


def test_saturation_keeps_gray_images():
    images = torch.rand(4, 1, 5, 5)
    torch.testing.assert_close(augment(["saturation"], images), images)


def test_integers_stay_in_their_range(monkeypatch):
    """The product of the largest float32 below 1 and 9 rounds to 9."""
    images = torch.rand(4, 1, 2, 2)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1 - 2**-24))
    assert torch.equal(draw_integers(images, -4, 4), torch.full((4, 1), 4))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_every_dtype_is_kept(policy, dtype):
    images = torch.rand(4, 3, 8, 8, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert augment(policy, images).dtype == dtype


def test_translation_shifts_by_whole_pixels_up_to_an_eighth():
    images = torch.rand(600, 1, 16, 28)
    augmented = augment(["translation"], images)
    num_matches = torch.zeros(5, 7)
    padded = pad(images, (3, 3, 2, 2), value=0.5)
    for dy in range(5):
        for dx in range(7):
            moved = padded[..., dy : dy + 16, dx : dx + 28]
            num_matches[dy, dx] = (moved == augmented).flatten(1).all(1).sum()
    assert num_matches.sum() == 600 and (num_matches > 0).all()


@pytest.mark.parametrize("shape, side", [((1, 28, 28), 14), ((3, 9, 9), 4), ((3, 8, 32), 8)])
def test_cutout_grays_a_square_of_a_quarter_of_the_area(shape, side):
    images = 0.4 * torch.rand(50, *shape)
    augmented = augment(["cutout"], images)
    is_cut = (augmented == 0.5).all(1)
    assert torch.equal(augmented, images.masked_fill(is_cut.unsqueeze(1), 0.5))
    assert (is_cut.any(2).sum(1) == side).all() and (is_cut.any(1).sum(1) == side).all()
    assert (is_cut.sum((1, 2)) == side**2).all()


def test_channels_last_images_give_the_same_output():
    images = torch.rand(4, 3, 8, 8)
    augmentation = DiffAugment.Config().build()
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        results.append(augmentation(images.to(memory_format=memory_format), 1.0))
    assert torch.equal(*results)


def make_adaptive(probability, target=0.6, adaptive_images=1000):
    config = DiffAugment.Config(
        probability=probability, adaptive_target=target, adaptive_images=adaptive_images
    )
    return AdaptiveProbability(config)


def test_adaptive_probability_moves_toward_the_target():
    overfitting_r = torch.tensor([3.0, 0.1, -9.0]).sign().mean()  # two thirds positive: r = 1/3
    for target, expected in ((0.3, 0.5 + 0.064), (0.4, 0.5 - 0.064)):
        probability = make_adaptive(0.5, target)
        probability.update(overfitting_r, num_images=64)
        assert probability().item() == pytest.approx(expected) and probability().shape == ()


@pytest.mark.parametrize("start, overfitting_r, end", [(0.99, 1.0, 1), (0.01, -1.0, 0)])
def test_adaptive_probability_is_clamped_to_0_and_1(start, overfitting_r, end):
    probability = make_adaptive(start)
    probability.update(torch.tensor(overfitting_r, requires_grad=True), num_images=64)
    assert probability() == end and not probability().requires_grad


def test_adaptive_images_sets_the_speed_of_adaptation():
    probability = make_adaptive(0.0, adaptive_images=500)
    for _ in range(9):
        probability.update(torch.tensor(1.0), num_images=50)
    assert probability().item() == pytest.approx(0.9)


def test_probability_is_constant_without_a_target():
    assert AdaptiveProbability(DiffAugment.Config(probability=0.3))() == torch.tensor(0.3)
    assert not AdaptiveProbability(NoAugmentation.Config()).is_adaptive


@pytest.mark.parametrize(
    "values, message",
    [
        (
            {"policy": ["brightness", "rotation"]},
            r"policy must be one or more of brightness, contrast.*'rotation'",
        ),
        ({"policy": []}, r"policy must be one or more of .*got \[\]"),
        ({"policy": ["cutout", "cutout"]}, "policy must be .* each once"),
        ({"probability": 1.5}, r"probability must be in \[0, 1\]; got 1.5"),
        ({"probability": -0.1}, r"probability must be in \[0, 1\]; got -0.1"),
        ({"adaptive_target": 1.0}, r"adaptive_target must be in \(-1, 1\), or null; got 1.0"),
        ({"adaptive_images": 0}, "adaptive_images must be at least 1; got 0"),
    ],
)
def test_invalid_config_is_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        DiffAugment.Config(**values)
