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


def test_non_saturating_against_values_by_hand():
    loss, real, fake = (
        NonSaturating.Config().build(),
        torch.tensor([2.0, -1.0]),
        torch.tensor([0.5, -3.0]),
    )
    expected = torch.tensor([softplus(-2) + softplus(0.5), softplus(1) + softplus(-3)])
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor([softplus(-0.5), softplus(3)])
    )


def test_relativistic_against_values_by_hand():
    loss, real, fake = (
        Relativistic.Config().build(),
        torch.tensor([2.0, -1.0]),
        torch.tensor([0.5, -3.0]),
    )
    torch.testing.assert_close(
        loss.discriminator(real, fake), torch.tensor([softplus(-1.5), softplus(-2)])
    )
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor([softplus(1.5), softplus(2)])
    )


@pytest.mark.parametrize(
    "loss, for_discriminator, for_generator",
    [
        (Hinge, [0 + 1.5, 2 + 0], [-0.5, 3]),
        (LeastSquares, [(1 + 2.25) / 2, (4 + 4) / 2], [0.125, 8]),
        (Wasserstein, [0.5 - 2, -3 + 1], [-0.5, 3]),
    ],
)
def test_other_losses_against_values_by_hand(loss, for_discriminator, for_generator):
    loss, real, fake = loss.Config().build(), torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    torch.testing.assert_close(
        loss.discriminator(real, fake), torch.tensor(for_discriminator, dtype=torch.float)
    )
    torch.testing.assert_close(
        loss.generator(fake, real), torch.tensor(for_generator, dtype=torch.float)
    )


@pytest.mark.parametrize("name", sorted(AdversarialLoss.choices))
def test_losses_pull_the_right_way(name):
    loss = AdversarialLoss.choices[name].Config().build()
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    assert loss.discriminator(real, fake).shape == (4,)
    for_real, for_fake = torch.autograd.grad(loss.discriminator(real, fake).sum(), (real, fake))
    assert (for_real < 0).all() and (for_fake > 0).all()
    (for_fake,) = torch.autograd.grad(loss.generator(fake, real).sum(), fake)
    assert (for_fake < 0).all()


@pytest.mark.parametrize("name", sorted(AdversarialLoss.choices))
def test_only_paired_losses_read_real_logits_in_the_generators_step(name):
    loss = AdversarialLoss.choices[name].Config().build()
    fake = torch.randn(4)
    same = torch.equal(loss.generator(fake, torch.zeros(4)), loss.generator(fake, torch.ones(4)))
    assert same is not loss.IS_RELATIVISTIC


@pytest.mark.parametrize("penalty, where", [(R1, [0]), (R2, [1]), (R1R2, [0, 1])])
def test_penalties_take_the_norm_of_each_image_not_of_the_batch(discriminator, penalty, where):
    real, fake = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    expected = []
    for images in zip(real, fake, strict=True):
        total = 0.0
        for i in where:
            image = images[i][None].requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(image).sum(), image)
            total += gradient.square().sum().item() / 2
        expected.append(total)
    torch.testing.assert_close(
        penalty.Config().build(SHAPE)(discriminator, real, fake), torch.tensor(expected)
    )


def test_wgan_gp_draws_the_slope_between_real_and_fake_to_one():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    slope = linear[1].weight.norm().item()
    real, fake = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    expected = torch.full((5,), (slope - 1) ** 2)
    torch.testing.assert_close(WganGP.Config().build(SHAPE)(linear, real, fake), expected)
    seen = []
    WganGP.Config().build(SHAPE)(lambda images: seen.append(images) or linear(images), real, fake)
    share = (seen[0] - fake) / (real - fake)
    assert (share.flatten(1).std(1) < 1e-2).all() and share.flatten(1).mean(1).std() > 0.05


def test_wgan_gp_is_finite_where_the_discriminator_is_flat():
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
def test_a_lazy_penalty_has_the_total_weight_of_an_eager_one(penalty):
    lazy = penalty.Config(gamma=3.0, interval=4).build(SHAPE)
    eager = penalty.Config(gamma=3.0, interval=1).build(SHAPE)
    weights = [lazy.weight(step, 0.5) for step in range(16)]
    assert weights == [12.0, 0, 0, 0] * 4
    assert sum(weights) == sum(eager.weight(step, 0.5) for step in range(16))


def test_a_weight_that_is_left_open_grows_with_the_number_of_pixels():
    small, large = (
        R1.Config(interval=1).build(shape).weight(0, 0.0) for shape in ((1, 28, 28), (3, 56, 56))
    )
    assert small == pytest.approx(0.05) and large == pytest.approx(0.05 * 12)
    assert R1.Config(gamma=0.1, interval=1).build((3, 56, 56)).weight(0, 0.0) == 0.1


def test_gamma_falls_by_half_a_cosine():
    penalty = R1.Config(gamma=8.0, gamma_final=0.25, interval=1).build(SHAPE)
    assert [penalty.weight(0, share) for share in (0, 0.5, 1, 1.5)] == pytest.approx([8, 5, 2, 2])


def test_no_penalty_is_never_due(discriminator):
    penalty = GradientPenalty.choices["none"].Config().build(SHAPE)
    assert not any(penalty.weight(step, 0) for step in range(100))
    assert penalty(discriminator, torch.rand(3, *SHAPE), torch.rand(3, *SHAPE)).tolist() == [
        0,
        0,
        0,
    ]


@pytest.mark.parametrize("name", sorted(set(GradientPenalty.choices) - {"none"}))
def test_penalties_train_the_discriminator_and_not_the_generator(discriminator, name):
    fake = torch.rand(5, *SHAPE, requires_grad=True)
    GradientPenalty.choices[name].Config().build(SHAPE)(
        discriminator, torch.rand(5, *SHAPE), fake
    ).sum().backward()
    assert discriminator[1].weight.grad.abs().sum() > 0
    assert fake.grad is None


def test_gradient_of_a_linear_discriminator_is_its_weight(discriminator):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 1), nn.Flatten(0))
    expected = linear[1].weight.square().sum().expand(4)
    torch.testing.assert_close(squared_gradient(linear, torch.rand(4, *SHAPE)), expected)


def test_penalty_is_float32_under_autocast(discriminator):
    images = torch.rand(4, *SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = squared_gradient(discriminator, images)
    torch.testing.assert_close(inside, squared_gradient(discriminator, images), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(GradientPenalty.choices))
def test_every_penalty_is_float32_under_autocast(discriminator, name):
    penalty, real, fake = (
        GradientPenalty.choices[name].Config().build(SHAPE),
        torch.rand(4, *SHAPE),
        torch.rand(4, *SHAPE),
    )
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
def test_bad_penalties_are_refused(values, message):
    for choice in GradientPenalty.choices.values():
        if issubclass(choice, LazyPenalty):
            with pytest.raises(ValueError, match=message):
                choice.Config(**values)
