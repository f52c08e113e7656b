import math

import pytest
import torch
from torch import nn

from vaegan.gan.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from vaegan.gan.penalties import (
    R1,
    R1R2,
    R2,
    GradientPenalty,
    LazyPenalty,
    WganGP,
    squared_gradient,
)

SHAPE = (3, 8, 8)


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.fixture
def discriminator():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0)
    )


def test_non_saturating_loss_matches_the_formula():
    loss = NonSaturating.Config().build()
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    expected = torch.tensor([softplus(-2) + softplus(0.5), softplus(1) + softplus(-3)])
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor([softplus(-0.5), softplus(3)])
    )


def test_relativistic_loss_matches_the_formula():
    loss = Relativistic.Config().build()
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    torch.testing.assert_close(
        loss.discriminator(real, fake), torch.tensor([softplus(-1.5), softplus(-2)])
    )
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor([softplus(1.5), softplus(2)])
    )


@pytest.mark.parametrize(
    "loss, discriminator_values, generator_values",
    [
        (Hinge, [0 + 1.5, 2 + 0], [-0.5, 3]),
        (LeastSquares, [(1 + 2.25) / 2, (4 + 4) / 2], [0.125, 8]),
        (Wasserstein, [0.5 - 2, -3 + 1], [-0.5, 3]),
    ],
)
def test_other_losses_match_the_formula(loss, discriminator_values, generator_values):
    loss = loss.Config().build()
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    torch.testing.assert_close(
        loss.discriminator(real, fake), torch.tensor(discriminator_values, dtype=torch.float)
    )
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor(generator_values, dtype=torch.float)
    )


@pytest.mark.parametrize("name", sorted(AdversarialLoss.choices))
def test_loss_gradients_have_the_right_sign(name):
    loss = AdversarialLoss.choices[name].Config().build()
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    assert loss.discriminator(real, fake).shape == (4,)
    real_grad, fake_grad = torch.autograd.grad(loss.discriminator(real, fake).sum(), (real, fake))
    assert (real_grad < 0).all() and (fake_grad > 0).all()
    (fake_grad,) = torch.autograd.grad(loss.generator(fake, real).sum(), fake)
    assert (fake_grad < 0).all()


@pytest.mark.parametrize("name", sorted(AdversarialLoss.choices))
def test_only_relativistic_generator_losses_depend_on_real_logits(name):
    loss = AdversarialLoss.choices[name].Config().build()
    fake = torch.randn(4)
    same = torch.equal(loss.generator(fake, torch.zeros(4)), loss.generator(fake, torch.ones(4)))
    assert same is not loss.IS_RELATIVISTIC


@pytest.mark.parametrize("penalty, positions", [(R1, [0]), (R2, [1]), (R1R2, [0, 1])])
def test_penalties_are_computed_per_image(discriminator, penalty, positions):
    real, fake = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    expected = []
    for images in zip(real, fake, strict=True):
        total = 0.0
        for i in positions:
            image = images[i][None].requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(image).sum(), image)
            total += gradient.square().sum().item() / 2
        expected.append(total)
    torch.testing.assert_close(
        penalty.Config().build(SHAPE)(discriminator, real, fake), torch.tensor(expected)
    )


def test_wgan_gp_penalizes_the_gradient_norm_at_interpolated_images():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    slope = linear[1].weight.norm().item()
    real, fake = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    expected = torch.full((5,), (slope - 1) ** 2)
    torch.testing.assert_close(WganGP.Config().build(SHAPE)(linear, real, fake), expected)
    inputs = []
    WganGP.Config().build(SHAPE)(lambda images: inputs.append(images) or linear(images), real, fake)
    epsilon = ((inputs[0] - fake) / (real - fake)).flatten(1)
    assert (epsilon.std(1) < 1e-2).all() and epsilon.mean(1).std() > 0.05


def test_wgan_gp_gradient_is_finite_for_a_constant_discriminator():
    weight = torch.zeros(192, requires_grad=True)
    penalty = WganGP.Config().build(SHAPE)(
        lambda images: images.flatten(1) @ weight, torch.rand(3, *SHAPE), torch.rand(3, *SHAPE)
    )
    penalty.sum().backward()
    assert weight.grad.isfinite().all()


LAZY_PENALTIES = [
    penalty for penalty in GradientPenalty.choices.values() if issubclass(penalty, LazyPenalty)
]


@pytest.mark.parametrize("penalty", LAZY_PENALTIES)
def test_total_penalty_weight_does_not_depend_on_the_interval(penalty):
    lazy = penalty.Config(gamma=3.0, interval=4).build(SHAPE)
    eager = penalty.Config(gamma=3.0, interval=1).build(SHAPE)
    weights = [lazy.weight(step, 0.5) for step in range(16)]
    assert weights == [12.0, 0, 0, 0] * 4
    assert sum(weights) == sum(eager.weight(step, 0.5) for step in range(16))


def test_default_gamma_is_proportional_to_the_number_of_pixels():
    small, large = (
        R1.Config(interval=1).build(shape).weight(0, 0.0) for shape in ((1, 28, 28), (3, 56, 56))
    )
    assert small == pytest.approx(0.05) and large == pytest.approx(0.05 * 12)
    assert R1.Config(gamma=0.1, interval=1).build((3, 56, 56)).weight(0, 0.0) == 0.1


def test_gamma_follows_half_a_cosine():
    penalty = R1.Config(gamma=8.0, gamma_final=0.25, interval=1).build(SHAPE)
    assert [penalty.weight(0, progress) for progress in (0, 0.5, 1, 1.5)] == pytest.approx(
        [8, 5, 2, 2]
    )


def test_no_penalty_has_weight_zero(discriminator):
    penalty = GradientPenalty.choices["none"].Config().build(SHAPE)
    assert not any(penalty.weight(step, 0) for step in range(100))
    real, fake = torch.rand(3, *SHAPE), torch.rand(3, *SHAPE)
    assert penalty(discriminator, real, fake).tolist() == [0.0] * 3


@pytest.mark.parametrize("name", sorted(set(GradientPenalty.choices) - {"none"}))
def test_penalty_gradients_reach_only_the_discriminator(discriminator, name):
    penalty = GradientPenalty.choices[name].Config().build(SHAPE)
    fake = torch.rand(5, *SHAPE, requires_grad=True)
    penalty(discriminator, torch.rand(5, *SHAPE), fake).sum().backward()
    assert discriminator[1].weight.grad.abs().sum() > 0
    assert fake.grad is None


def test_squared_gradient_of_a_linear_discriminator(discriminator):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    expected = linear[1].weight.square().sum().expand(4)
    torch.testing.assert_close(squared_gradient(linear, torch.rand(4, *SHAPE)), expected)


def test_squared_gradient_is_float32_under_autocast(discriminator):
    images = torch.rand(4, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = squared_gradient(discriminator, images)
    torch.testing.assert_close(inside, squared_gradient(discriminator, images), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(GradientPenalty.choices))
def test_penalties_are_float32_under_autocast(discriminator, name):
    penalty = GradientPenalty.choices[name].Config().build(SHAPE)
    real, fake = torch.rand(4, *SHAPE), torch.rand(4, *SHAPE)
    torch.manual_seed(1)
    outside = penalty(discriminator, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = penalty(discriminator, real, fake.bfloat16().float())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, outside, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"gamma": -1.0}, "gamma must be at least 0"),
        ({"gamma_final": -1.0}, "gamma_final must be at least 0"),
        ({"interval": 0}, "interval must be at least 1"),
    ],
)
def test_invalid_penalty_config_is_rejected(values, message):
    for choice in GradientPenalty.choices.values():
        if issubclass(choice, LazyPenalty):
            with pytest.raises(ValueError, match=message):
                choice.Config(**values)
