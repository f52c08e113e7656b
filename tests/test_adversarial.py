import math

import pytest
import torch
from torch import nn

from vaegan.adversarial import R1, R1R2, AdversarialLoss, GradientPenalty, NonSaturating, Relativistic, squared_gradient

SHAPE = (3, 8, 8)


def softplus(x):
    return math.log1p(math.exp(x))


@pytest.fixture
def discriminator():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))


def test_non_saturating_against_values_by_hand():
    loss, real, fake = NonSaturating.Config().build(), torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    expected = torch.tensor([softplus(-2) + softplus(0.5), softplus(1) + softplus(-3)])
    torch.testing.assert_close(loss.discriminator(real, fake), expected)
    torch.testing.assert_close(loss.generator(fake, real), torch.tensor([softplus(-0.5), softplus(3)]))


def test_relativistic_against_values_by_hand():
    loss, real, fake = Relativistic.Config().build(), torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    torch.testing.assert_close(loss.discriminator(real, fake), torch.tensor([softplus(-1.5), softplus(-2)]))
    torch.testing.assert_close(loss.generator(fake, real), torch.tensor([softplus(1.5), softplus(2)]))


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
    choice = AdversarialLoss.choices[name]
    fake = torch.randn(4)
    same = torch.equal(choice().generator(fake, torch.zeros(4)), choice().generator(fake, torch.ones(4)))
    assert same is not choice.PAIRED


@pytest.mark.parametrize("penalty, on_fakes", [(R1, False), (R1R2, True)])
def test_penalties_take_the_norm_of_each_image_not_of_the_batch(discriminator, penalty, on_fakes):
    real, fake = torch.rand(5, *SHAPE), torch.rand(5, *SHAPE)
    expected = []
    for images in zip(real, fake, strict=True):
        total = 0.0
        for image in images if on_fakes else images[:1]:
            image = image[None].requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(image).sum(), image)
            total += 3.0 / 2 * gradient.square().sum().item()
        expected.append(total)
    actual = penalty.Config(gamma=3.0).build()(discriminator, real, fake)
    torch.testing.assert_close(actual, torch.tensor(expected))


@pytest.mark.parametrize("name", sorted(GradientPenalty.choices))
def test_penalties_train_the_discriminator_and_not_the_generator(discriminator, name):
    fake = torch.rand(5, *SHAPE, requires_grad=True)
    GradientPenalty.choices[name].Config().build()(discriminator, torch.rand(5, *SHAPE), fake).sum().backward()
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


@pytest.mark.parametrize(
    "values, message", [({"gamma": -1.0}, "gamma must be at least 0"), ({"interval": 0}, "interval must be at least 1")]
)
def test_bad_penalties_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        R1.Config(**values)
