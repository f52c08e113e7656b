"""Tests of all registered likelihoods, including new ones, and of their variants."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Distribution, constraints

from vaegan.probability.distributions import eight_bit
from vaegan.probability.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from vaegan.probability.likelihoods.eight_bit import DiscretizedLogisticMixture
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.likelihoods.location_scale import Gaussian, Laplace
from vaegan.probability.posteriors import Posterior
from vaegan.probability.priors import Prior

PIXEL = (1, 1, 1)
VARIANTS = {name: choice.Config() for name, choice in Likelihood.choices.items()} | {
    "bernoulli_static": Bernoulli.Config(static_seed=3),
    "discretized_logistic": DiscretizedLogisticMixture.Config(num_components=1),
    "gaussian_raw": Gaussian.Config(dequantize=False),
    "gaussian_fixed": Gaussian.Config(scale=0.1),
    "gaussian_per_channel": Gaussian.Config(scale="per_channel"),
    "gaussian_per_pixel": Gaussian.Config(scale="per_pixel"),
    "gaussian_optimal": Gaussian.Config(scale="optimal"),
    "laplace_per_pixel": Laplace.Config(scale="per_pixel"),
}


@pytest.fixture(params=sorted(VARIANTS))
def config(request):
    return VARIANTS[request.param]


def image_shapes(config):
    if config.name == "bernoulli":
        return [(1, 28, 28), (1, 5, 7)]
    return [(1, 28, 28), (3, 8, 12), (2, 5, 7)]


def integration_grid(likelihood):
    """Return values of one pixel, (N,), and their weights in a sum over the support, (N,)."""
    if likelihood.support is constraints.boolean:
        return torch.tensor([0.0, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    if likelihood.support is eight_bit:
        return torch.linspace(0, 1, 256, dtype=torch.float64), torch.ones(256, dtype=torch.float64)
    edges = torch.linspace(0, 1, 400_001, dtype=torch.float64)
    if likelihood.support is constraints.real:  # fine in [-1, 1], coarse in the tails
        tail = torch.linspace(1, 100, 100_001, dtype=torch.float64)[1:]
        negative = torch.linspace(-1, 0, 400_001, dtype=torch.float64)[:-1]
        edges = torch.cat([-tail.flip(0), negative, edges, tail])
    return (edges[1:] + edges[:-1]) / 2, edges.diff()


def pixel_probabilities(distribution, x):
    """Return the mass or density of a pixel at each value, (N,)."""
    return distribution.log_prob(x.view(-1, 1, 1, 1)).exp()


def test_distribution_has_the_right_shapes_and_a_mean_in_range(config):
    for shape in image_shapes(config):
        likelihood = config.build(shape)
        for batch in [(4,), (2, 4)]:
            distribution = likelihood(torch.randn(*batch, *likelihood.param_shape) * 5)
            assert isinstance(distribution, Distribution)
            assert (distribution.batch_shape, distribution.event_shape) == (batch, shape)
            assert distribution.mean.shape == (*batch, *shape)
            assert 0 <= distribution.mean.min() and distribution.mean.max() <= 1
            assert distribution.sample((3,)).shape == (3, *batch, *shape)
            assert distribution.log_prob(likelihood.target(torch.rand(4, *shape))).shape == batch


def test_extreme_parameters_stay_in_range_and_finite(config):
    likelihood = config.build((1, 4, 4))
    params = torch.randn(4, *likelihood.param_shape).sign() * 1e3
    params.requires_grad_()
    distribution = likelihood(params)
    assert 0 <= distribution.mean.min() and distribution.mean.max() <= 1
    log_prob = distribution.log_prob(likelihood.target(torch.randint(256, (4, 1, 4, 4)) / 255))
    log_prob.sum().backward()
    assert log_prob.isfinite().all() and params.grad.isfinite().all()


def test_probabilities_of_one_pixel_sum_to_one(config):
    likelihood = config.build(PIXEL).requires_grad_(False)
    x, weights = integration_grid(likelihood)
    for _ in range(4):
        params = (torch.randn(1, *likelihood.param_shape) * 1.5).double()
        total = (pixel_probabilities(likelihood(params), x) * weights).sum()
        assert total.item() == pytest.approx(1, abs=1e-5)


def test_samples_agree_with_log_prob_in_mean_and_variance(config):
    likelihood = config.build(PIXEL).requires_grad_(False)
    x, weights = integration_grid(likelihood)
    num_samples = 40_000
    for _ in range(3):
        distribution = likelihood(torch.randn(1, *likelihood.param_shape).double())
        masses = pixel_probabilities(distribution, x) * weights
        mean, square, fourth = (float((masses * x**power).sum()) for power in (1, 2, 4))
        samples = distribution.sample((num_samples,)).flatten().double()
        assert likelihood.support.check(samples).all()
        tolerance = 5 * math.sqrt((square - mean**2) / num_samples)
        assert samples.mean().item() == pytest.approx(mean, abs=tolerance)
        tolerance = 5 * math.sqrt((fourth - square**2) / num_samples)
        assert samples.square().mean().item() == pytest.approx(square, abs=tolerance)


def test_mean_agrees_with_log_prob(config):
    """The mean of a rounded logistic is that before rounding, at most half a level away."""
    likelihood = config.build(PIXEL).requires_grad_(False)
    x, weights = integration_grid(likelihood)
    for _ in range(5):
        distribution = likelihood(torch.randn(1, *likelihood.param_shape).double())
        expected = float((pixel_probabilities(distribution, x) * weights * x).sum())
        tolerance = 0.5 / 255 if isinstance(likelihood, DiscretizedLogisticMixture) else 1e-6
        assert distribution.mean.item() == pytest.approx(expected, abs=tolerance)


def test_the_image_is_the_mean(config):
    """Bit for bit, so that a GAN starts with exactly the images of the VAE."""
    likelihood = config.build((1, 5, 7))
    params = (10 * torch.randn(4, *likelihood.param_shape)).requires_grad_()
    for saturation_logit in (0.0, 8.0):
        image = likelihood.image(params, saturation_logit)
        assert torch.equal(image, likelihood(params).mean)


@pytest.mark.parametrize("config", [Bernoulli.Config(), Gaussian.Config()])
@pytest.mark.parametrize("start", [-50.0, 50.0])
def test_the_gradient_of_a_saturated_image_lets_it_recover(config, start):
    """From a black or white image, gradient descent gets to gray, and from gray not far beyond."""
    likelihood = config.build(PIXEL)
    params = torch.full((1, *likelihood.param_shape), start, requires_grad=True)
    optimizer = torch.optim.Adam([params], lr=0.5, betas=(0.0, 0.99))
    for target in (0.5, float(start > 0)):
        for _ in range(200):
            loss = (likelihood.image(params, saturation_logit=8.0) - target).abs().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert abs(likelihood.image(params).item() - target) < 0.2
    assert params.abs().item() < 10


def test_log_prob_is_summed_over_pixels_only(config):
    """An image of n equal pixels has n times the log-likelihood of one, in any batch."""
    one, many = config.build(PIXEL), config.build((1, 6, 4))
    params = torch.randn(1, *one.param_shape)
    x = one.target(torch.rand(1, *PIXEL))
    single = one(params).log_prob(x)
    image = many(params.expand(5, *many.param_shape)).log_prob(x.expand(5, 1, 6, 4))
    torch.testing.assert_close(image, 24 * single.expand(5))


def test_targets_lie_on_the_support(config):
    likelihood = config.build((1, 8, 8))
    x = torch.cat(
        [torch.randint(256, (16, 1, 8, 8)) / 255, torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)]
    )
    for seed in (None, 0):
        target = likelihood.target(x, seed)
        likelihood.check(target)
        assert target.shape == x.shape and target.dtype == x.dtype
        assert 0 <= target.min() and target.max() <= 1
        assert (target - x).abs().mean() < 0.5


def test_seeded_target_is_a_function_of_the_image(config):
    likelihood = config.build((1, 8, 8))
    x = torch.randint(1, 255, (16, 1, 8, 8)) / 255
    order = torch.randperm(16)
    assert torch.equal(likelihood.target(x, 0)[order], likelihood.target(x[order], 0))
    is_noisy = not torch.equal(likelihood.target(x), likelihood.target(x))
    is_static = getattr(config, "static_seed", None) is not None
    is_binarized = config.name == "bernoulli" and not is_static
    assert is_noisy == (is_binarized or getattr(config, "dequantize", False))
    assert torch.equal(likelihood.target(x, 0), likelihood.target(x, 1)) != is_noisy


def test_discrete_likelihoods_are_masses_of_at_most_one(config):
    likelihood = config.build((1, 8, 8))
    is_mass = config.name in ("bernoulli", "categorical", "discretized_logistic_mixture")
    assert likelihood.is_discrete == is_mass
    if likelihood.is_discrete:
        target = likelihood.target(torch.rand(16, 1, 8, 8))
        params = torch.randn(16, *likelihood.param_shape) * 3
        assert (likelihood(params).log_prob(target) <= 0).all()


def test_check_rejects_values_outside_the_support(config):
    likelihood = config.build(PIXEL)
    outside = math.nan if likelihood.support is constraints.real else 1.5
    message = f"likelihood={config.name} has the support .*; got a pixel of {outside}"
    with pytest.raises(ValueError, match=message):
        likelihood.check(torch.tensor([1.0, outside]))


def test_bits_per_dim_of_a_uniform_density_and_a_uniform_mass_are_equal():
    """Both need 8 bits per pixel."""
    images = torch.randint(256, (4, 1, 6, 6)) / 255
    for name in ("continuous_bernoulli", "categorical"):
        likelihood = Likelihood.choices[name].Config().build((1, 6, 6))
        distribution = likelihood(torch.zeros(4, *likelihood.param_shape))
        log_prob = distribution.log_prob(likelihood.target(images))
        torch.testing.assert_close(likelihood.bits_per_dim(log_prob), torch.full((4,), 8.0))


def test_dequantized_density_needs_at_least_the_bits_of_its_mass():
    """Theis et al. 2016: the mean log-density in a bin is at most the log of its mean density."""
    likelihood = Gaussian.Config(scale=0.02).build((1, 1, 1))
    image = torch.full((20_000, 1, 1, 1), 100 / 255)
    params = torch.logit(torch.tensor(0.4)).view(1, 1, 1, 1)
    log_prob = likelihood(params).log_prob(likelihood.target(image))
    density_bits = likelihood.bits_per_dim(log_prob).mean().item()
    mass = stats.norm.cdf(101 / 256, 0.4, 0.02) - stats.norm.cdf(100 / 256, 0.4, 0.02)
    assert density_bits >= -math.log2(mass) - 1e-4
    assert density_bits == pytest.approx(-math.log2(mass), abs=0.01)


def test_bits_per_dim_are_none_without_a_likelihood_of_8_bit_images():
    for config in (Bernoulli.Config(), Gaussian.Config(dequantize=False)):
        assert config.build((1, 2, 2)).bits_per_dim(torch.zeros(3)) is None


def test_bernoulli_agrees_with_scipy():
    logits = torch.randn(3, 1, 2, 2).double()
    x = torch.bernoulli(torch.full((3, 1, 2, 2), 0.5)).double()
    expected = stats.bernoulli.logpmf(x.numpy(), logits.sigmoid().numpy()).sum((1, 2, 3))
    actual = Bernoulli.Config().build((1, 2, 2))(logits).log_prob(x)
    torch.testing.assert_close(actual, torch.as_tensor(expected))


@pytest.mark.parametrize("scale", [0.05, 1])
@pytest.mark.parametrize("choice, reference", [(Gaussian, stats.norm), (Laplace, stats.laplace)])
def test_fixed_scale_agrees_with_scipy(choice, reference, scale):
    params, x = torch.randn(3, 1, 2, 2).double(), torch.rand(3, 1, 2, 2).double()
    expected = reference.logpdf(x.numpy(), params.sigmoid().numpy(), scale).sum((1, 2, 3))
    actual = choice.Config(scale=scale).build((1, 2, 2))(params).log_prob(x)
    torch.testing.assert_close(actual, torch.as_tensor(expected))


@pytest.mark.parametrize("kind, tolerance", [("learned", 0.01), ("optimal", 0.01)])
def test_gaussian_scale_converges_to_the_std_of_the_residuals(kind, tolerance):
    likelihood = Gaussian.Config(scale=kind, initial_scale=0.5).build((1, 16, 16))
    params = torch.zeros(64, 1, 16, 16)
    x = 0.5 + 0.1 * torch.randn_like(params)
    optimizer = torch.optim.Adam(
        [*likelihood.parameters(), torch.zeros(1, requires_grad=True)], 0.05
    )
    for _ in range(300):
        likelihood.update_running_scale(params, x)
        optimizer.zero_grad()
        if kind == "learned":
            (-likelihood(params).log_prob(x).mean()).backward()
        optimizer.step()
    found = likelihood(params).base_dist.scale.flatten()[0].item()
    assert found == pytest.approx((x - 0.5).square().mean().sqrt().item(), rel=tolerance)


def test_per_pixel_scales_are_decoder_outputs():
    likelihood = Gaussian.Config(scale="per_pixel").build((3, 4, 4))
    assert likelihood.param_shape == (6, 4, 4)
    params = torch.zeros(1, 6, 4, 4)
    params[:, 3:] = torch.randn(1, 3, 4, 4)
    scales = likelihood(params).base_dist.scale
    assert scales.shape == (1, 3, 4, 4) and len(scales.unique()) == 48


def test_gaussian_density_is_finite_on_constant_images():
    likelihood = Gaussian.Config(min_scale=1e-3).build(PIXEL)
    torch.nn.init.constant_(likelihood.scale.log_excess, -100.0)
    log_prob = likelihood(torch.zeros(1, *PIXEL)).log_prob(torch.full((1, *PIXEL), 0.5))
    assert log_prob.isfinite().all()


def test_continuous_bernoulli_is_binary_cross_entropy_plus_the_log_normalizer():
    logits, x = torch.randn(3, 1, 2, 2).double() * 3, torch.rand(3, 1, 2, 2).double()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, x, reduction="none"
    )
    normalizer = torch.log(logits.abs() / torch.tanh(logits.abs() / 2))
    actual = ContinuousBernoulli.Config().build((1, 2, 2))(logits).log_prob(x)
    torch.testing.assert_close(actual, (normalizer - cross_entropy).sum((1, 2, 3)))


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: Gaussian.Config(scale=0.0),
            "scale must be a positive number, or one of learned, per_channel",
        ),
        (
            lambda: Gaussian.Config(scale="perpixel"),
            "scale must be a positive number, or one of .*; got 'perpixel'",
        ),
        (lambda: Laplace.Config(scale=math.nan), "scale must be a positive number"),
        (lambda: Gaussian.Config(min_scale=0.0), "min_scale must be positive"),
        (
            lambda: Gaussian.Config(initial_scale=1e-4),
            "initial_scale must be larger than min_scale=0.001",
        ),
        (
            lambda: DiscretizedLogisticMixture.Config(num_components=0),
            "num_components must be positive",
        ),
        (lambda: DiscretizedLogisticMixture.Config(min_scale=0.0), "min_scale must be positive"),
        (
            lambda: Bernoulli.Config().build((3, 8, 8)),
            "bernoulli requires 1-channel images; got 3. Choose another",
        ),
    ],
)
def test_invalid_settings_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_dynamic_binarization_uses_new_noise_with_the_gray_value_as_probability():
    likelihood = Bernoulli.Config().build(PIXEL)
    gray = torch.full((10_000, *PIXEL), 0.3)
    first, second = likelihood.target(gray), likelihood.target(gray)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(0.3, abs=0.02)


def test_static_binarization_is_fixed_and_uses_the_gray_value_as_probability():
    likelihood = Bernoulli.Config(static_seed=0).build((1, 28, 28))
    gray = torch.rand(300, 1, 28, 28)
    target = likelihood.target(gray)
    assert torch.equal(target, likelihood.target(gray, seed=7))  # static_seed takes precedence
    assert not torch.equal(target, Bernoulli.Config(static_seed=1).build((1, 28, 28)).target(gray))
    for low in (0.0, 0.25, 0.5, 0.75):
        part = (gray >= low) & (gray < low + 0.25)
        assert target[part].mean().item() == pytest.approx(low + 0.125, abs=0.01)


@pytest.mark.parametrize("group", [Likelihood, Prior, Posterior])
def test_every_choice_can_be_built_on_the_meta_device(group):
    """The flows are excluded: zuko reads tensor values during construction."""
    arguments = {Likelihood: [PIXEL], Prior: [2, PIXEL], Posterior: [2]}[group]
    for choice in (group.choices[name] for name in group.choices if name != "flow"):
        with torch.device("meta"):
            module = choice.Config().build(*arguments)
        assert all(parameter.is_meta for parameter in module.parameters())


def test_noise_does_not_depend_on_the_memory_layout(config):
    """Cached images are channels-last views; images decoded on demand need not be."""
    for shape in image_shapes(config):
        likelihood = config.build(shape)
        x = torch.randint(256, (5, *shape)) / 255
        params = torch.randn(5, *likelihood.param_shape)
        results = []
        for layout in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            target = likelihood.target(x.contiguous(memory_format=layout))
            distribution = likelihood(params.contiguous(memory_format=layout))
            results.append((target, distribution.sample()))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1])
