"""Over the registry: a new noise model is tested the day it is written."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Distribution

from vaegan.likelihoods import Bernoulli, Gaussian, Likelihood

SHAPES = [(1, 28, 28), (3, 8, 12)]
PIXEL = (1, 1, 1)


@pytest.fixture(params=sorted(Likelihood.choices))
def choice(request):
    return Likelihood.choices[request.param]


def grid_of(likelihood):
    """Values x of one pixel, (N,), and the weight of each in a sum over the support."""
    if isinstance(likelihood, Bernoulli):
        return torch.tensor([0.0, 1.0]), torch.ones(2)
    x = torch.linspace(-8, 9, 200_001, dtype=torch.float64)
    return x, torch.full_like(x, float(x[1] - x[0]))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_range_of_the_mean(choice, shape):
    likelihood = choice.Config().build(shape)
    params = torch.randn(4, *likelihood.param_shape) * 5
    distribution = likelihood(params)
    assert isinstance(distribution, Distribution)
    assert (distribution.batch_shape, distribution.event_shape) == ((4,), shape)
    assert distribution.mean.shape == (4, *shape)
    assert 0 <= distribution.mean.min() and distribution.mean.max() <= 1
    assert distribution.sample().shape == (4, *shape)
    target = likelihood.target(torch.rand(4, *shape))
    assert distribution.log_prob(target).shape == (4,)


def test_mass_or_density_of_one_pixel_sums_to_one(choice):
    likelihood = choice.Config().build(PIXEL).requires_grad_(False)
    x, weights = grid_of(likelihood)
    for value in torch.linspace(-6, 6, 7):
        params = value.expand(len(x), *likelihood.param_shape).to(x.dtype)
        total = (likelihood(params).log_prob(x.view(-1, 1, 1, 1)).exp() * weights).sum()
        assert total.item() == pytest.approx(1, abs=1e-6)


def test_log_prob_is_summed_over_pixels_and_nothing_else(choice):
    """Nats per image: an image of n equal pixels has n times the log-likelihood of one; the batch changes nothing."""
    one, many = choice.Config().build(PIXEL), choice.Config().build((1, 6, 4))
    params = torch.randn(1, *one.param_shape)
    x = one.target(torch.rand(1, *PIXEL))
    single = one(params).log_prob(x)
    image = many(params.expand(5, *many.param_shape)).log_prob(x.expand(5, 1, 6, 4))
    torch.testing.assert_close(image, 24 * single.expand(5))


def test_samples_have_the_stated_mean(choice):
    likelihood = choice.Config().build((1, 4, 4))
    distribution = likelihood(torch.randn(1, *likelihood.param_shape))
    samples = distribution.sample((20_000,))
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - distribution.mean).abs() < 5 * error + 1e-3).all()


def test_mass_is_at_most_one(choice):
    likelihood = choice.Config().build((1, 8, 8))
    if likelihood.is_discrete:
        target = likelihood.target(torch.rand(16, 1, 8, 8))
        assert (likelihood(torch.randn(16, *likelihood.param_shape) * 3).log_prob(target) <= 0).all()


def test_bernoulli_agrees_with_scipy():
    logits, x = torch.randn(3, 1, 2, 2).double(), torch.bernoulli(torch.full((3, 1, 2, 2), 0.5)).double()
    expected = stats.bernoulli.logpmf(x.numpy(), logits.sigmoid().numpy()).sum((1, 2, 3))
    actual = Bernoulli.Config().build((1, 2, 2))(logits).log_prob(x)
    torch.testing.assert_close(actual, torch.as_tensor(expected))


@pytest.mark.parametrize("scale", [0.05, 1.0])
def test_gaussian_with_a_fixed_scale_agrees_with_scipy(scale):
    params, x = torch.randn(3, 1, 2, 2).double(), torch.rand(3, 1, 2, 2).double()
    expected = stats.norm.logpdf(x.numpy(), params.sigmoid().numpy(), scale).sum((1, 2, 3))
    actual = Gaussian.Config(scale=scale).build((1, 2, 2))(params).log_prob(x)
    torch.testing.assert_close(actual, torch.as_tensor(expected))


def test_gaussian_learns_the_scale_of_the_residuals():
    likelihood = Gaussian.Config(initial_scale=0.5).build((1, 16, 16))
    assert likelihood.scale.item() == pytest.approx(0.5)
    params = torch.zeros(64, 1, 16, 16)
    x = 0.5 + 0.1 * torch.randn_like(params)
    optimizer = torch.optim.Adam(likelihood.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(params).log_prob(x).mean()).backward()
        optimizer.step()
    assert likelihood.scale.item() == pytest.approx((x - 0.5).square().mean().sqrt().item(), rel=0.01)


def test_gaussian_density_stays_finite_on_constant_images():
    likelihood = Gaussian.Config(min_scale=1e-3).build(PIXEL)
    torch.nn.init.constant_(likelihood.log_excess, -100.0)
    assert likelihood(torch.zeros(1, *PIXEL)).log_prob(torch.full((1, *PIXEL), 0.5)).isfinite().all()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"scale": 0.0}, "scale must be positive, or null"),
        ({"min_scale": 0.0}, "min_scale must be positive"),
        ({"initial_scale": 1e-4}, "initial_scale must be larger than min_scale=0.001"),
    ],
)
def test_gaussian_refuses_bad_scales(values, message):
    with pytest.raises(ValueError, match=message):
        Gaussian.Config(**values)


def test_bernoulli_binarizes_anew_each_time_with_the_grey_value_as_probability():
    likelihood, grey = Bernoulli.Config().build(PIXEL), torch.full((10_000, *PIXEL), 0.3)
    first, second = likelihood.target(grey), likelihood.target(grey)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(0.3, abs=0.02)
