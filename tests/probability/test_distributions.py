import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from vaegan.probability.distributions import (
    ContinuousBernoulli,
    DiagonalNormalMixture,
    DiscretizedLogisticMixture,
    EightBitCategorical,
    KernelDensity,
    eight_bit,
    mean_of,
    mixture,
)
from vaegan.runtime.seeding import RankInvariantNoise, seed_global

LEVELS = torch.linspace(0, 1, 256, dtype=torch.float64)


def test_continuous_bernoulli_agrees_with_torch_for_small_logits():
    logits = torch.linspace(-8, 8, 400).view(400, 1, 1, 1).double()
    x = torch.rand(400, 1, 1, 1).double()
    expected = torch.distributions.ContinuousBernoulli(logits=logits, validate_args=False)
    ours = ContinuousBernoulli(logits)
    torch.testing.assert_close(ours.log_prob(x), expected.log_prob(x).view(-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.mean, expected.mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "logit", [-2000.0, -60.0, -0.1, -0.0999, -1e-6, 0.0, 1e-3, 0.1001, 20.0, 500.0]
)
def test_continuous_bernoulli_is_normalized_for_any_logit(logit):
    distribution = ContinuousBernoulli(torch.full((1, 1, 1), logit))  # float32, as in training
    edge = min(1.0, 40 / max(abs(logit), 1e-9))  # the density beyond it is negligible
    x = torch.linspace(0, edge, 20_001, dtype=torch.float64)
    x = x if logit < 0 else 1 - x
    density = distribution.log_prob(x.float().view(-1, 1, 1, 1)).double().exp()
    width = edge / 20_000
    total = torch.trapezoid(density, dx=width).item()
    mean = torch.trapezoid(x * density, dx=width).item()
    # tolerance: rounding of x to float32 near 1
    assert total == pytest.approx(1, abs=2e-3)
    assert distribution.mean.item() == pytest.approx(mean, abs=2e-3)


def test_torch_continuous_bernoulli_is_wrong_for_large_logits():
    """This is the reason for our own class."""
    logit = torch.tensor(-60.0)
    theirs = torch.distributions.ContinuousBernoulli(logits=logit, validate_args=False)
    ours = ContinuousBernoulli(logit.view(1, 1, 1))
    assert ours.log_prob(torch.zeros(1, 1, 1)).item() == pytest.approx(math.log(60), abs=1e-4)
    assert abs(theirs.log_prob(torch.tensor(0.0)).item() - math.log(60)) > 1


def test_continuous_bernoulli_has_finite_gradients_and_samples_in_range():
    logits = torch.tensor([-500.0, -0.1, 0.0, 1e-5, 300.0]).view(5, 1, 1, 1).requires_grad_()
    distribution = ContinuousBernoulli(logits)
    (distribution.log_prob(torch.full_like(logits, 0.3)).sum() + distribution.mean.sum()).backward()
    assert logits.grad.isfinite().all()
    # d log p / d logit = x - mean in an exponential family
    residual = torch.full_like(logits, 0.3) - distribution.mean
    torch.testing.assert_close(logits.grad[:1], residual[:1].detach(), atol=1e-4, rtol=1e-3)
    assert distribution.rsample().min() >= 0 and distribution.rsample().max() <= 1


def test_eight_bit_categorical_agrees_with_torch():
    logits = torch.randn(3, 256, 2, 1, 1)
    x = torch.randint(256, (3, 2, 1, 1))
    expected = Categorical(logits=logits[..., 0, 0].mT).log_prob(x[..., 0, 0]).sum(1)
    torch.testing.assert_close(EightBitCategorical(logits).log_prob(x / 255), expected)


def logistic_masses(location, scale):
    """Return the masses of a rounded logistic at the 256 levels, computed with scipy."""
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    return np.diff(stats.logistic.cdf(edges, location, scale))


def pixel(logits, locations, scales, coefficients=()):
    """Return the mixture of one pixel from lists over components of lists over channels."""

    def reshape(values, *shape):
        return torch.tensor(values, dtype=torch.float64).view(1, len(logits), *shape, 1, 1)

    channels = len(locations[0])
    pairs = channels * (channels - 1) // 2
    coefficients = reshape(coefficients or [[0.0] * pairs] * len(logits), pairs)
    return DiscretizedLogisticMixture(
        reshape(logits), reshape(locations, channels), reshape(scales, channels), coefficients
    )


@pytest.mark.parametrize("location", [-0.5, 0.0, 0.301, 0.5, 1.0, 1.7])
@pytest.mark.parametrize("scale", [0.002, 0.05, 1.0])
def test_one_rounded_logistic_agrees_with_scipy(location, scale):
    masses = pixel([0.0], [[location]], [[scale]]).log_prob(LEVELS.view(-1, 1, 1, 1)).exp()
    torch.testing.assert_close(
        masses, torch.as_tensor(logistic_masses(location, scale)), atol=1e-12, rtol=1e-6
    )


def test_rounded_logistic_mixture_is_the_weighted_sum_of_its_components():
    distribution = pixel([0.3, -1.0], [[0.2], [0.8]], [[0.02], [0.1]])
    weights = np.exp([0.3, -1.0]) / np.exp([0.3, -1.0]).sum()
    expected = weights[0] * logistic_masses(0.2, 0.02) + weights[1] * logistic_masses(0.8, 0.1)
    torch.testing.assert_close(
        distribution.log_prob(LEVELS.view(-1, 1, 1, 1)).exp(), torch.as_tensor(expected)
    )


def test_channels_of_the_rounded_logistic_mixture_depend_on_earlier_channels():
    """Three channels agree with scipy; two channels sum to 1 over all 65,536 values."""
    coefficients = [[0.4, -0.3, 0.6], [-0.5, 0.2, 0.1]]
    locations, scales = [[0.3, 0.5, 0.6], [0.7, 0.4, 0.2]], [[0.05, 0.1, 0.03], [0.2, 0.06, 0.08]]
    distribution = pixel([0.2, -0.4], locations, scales, coefficients)
    for levels in ([12, 200, 90], [0, 255, 128], [255, 0, 0]):
        x, total = np.array(levels) / 255, 0.0
        for k, weight in enumerate(np.exp([0.2, -0.4]) / np.exp([0.2, -0.4]).sum()):
            a, b, c = coefficients[k]
            shifts = [0.0, a * (x[0] - 0.5), b * (x[0] - 0.5) + c * (x[1] - 0.5)]
            parts = [
                logistic_masses(locations[k][i] + shifts[i], scales[k][i])[levels[i]]
                for i in range(3)
            ]
            total += weight * np.prod(parts)
        value = torch.as_tensor(x).view(1, 3, 1, 1)
        assert distribution.log_prob(value).item() == pytest.approx(math.log(total), rel=1e-6)
    pair = pixel([0.2, -0.4], [[0.3, 0.5], [0.9, 0.4]], [[0.05, 0.1], [0.2, 0.06]], [[0.8], [-0.9]])
    total = pair.log_prob(torch.cartesian_prod(LEVELS, LEVELS).view(-1, 2, 1, 1)).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-9)


def test_samples_of_coupled_channels_have_the_right_mean_and_covariance():
    torch.manual_seed(0)
    distribution = pixel(
        [0.0, 0.5], [[0.4, 0.5], [0.6, 0.5]], [[0.02, 0.03], [0.03, 0.02]], [[0.8], [-0.5]]
    )
    samples = distribution.sample((50_000,))
    assert eight_bit.check(samples).all()
    torch.testing.assert_close(samples.mean(0), distribution.mean, atol=3e-3, rtol=0)
    centered = (samples - samples.mean(0)).view(-1, 2)
    grid = torch.cartesian_prod(LEVELS, LEVELS)
    masses = distribution.log_prob(grid.view(-1, 2, 1, 1)).exp()
    center = (masses[:, None] * grid).sum(0)
    covariance = (
        masses[:, None, None] * (grid - center)[:, :, None] * (grid - center)[:, None]
    ).sum(0)
    torch.testing.assert_close(
        centered.mT @ centered / len(centered), covariance, atol=5e-5, rtol=0.03
    )


def test_eight_bit_constraint_accepts_only_levels():
    assert eight_bit.check(LEVELS.float()).all()
    assert not eight_bit.check(torch.tensor([0.5 / 255, -1 / 255, 256 / 255])).any()
    assert "255" in repr(eight_bit)


def test_mixture_of_normals_agrees_with_torch():
    loc, scale, logits = torch.randn(30, 40) * 2, torch.rand(30, 40) * 0.3 + 1e-4, torch.randn(30)
    ours = mixture(logits, Independent(Normal(loc, scale), 1))
    assert isinstance(ours, DiagonalNormalMixture)
    expected = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(loc.double(), scale.double()), 1)
    )
    z = torch.cat([loc + scale * torch.randn(30, 40), torch.randn(6, 40)])
    torch.testing.assert_close(
        ours.log_prob(z).double(), expected.log_prob(z.double()), atol=1e-3, rtol=1e-6
    )
    assert ours.log_prob(z.view(4, 9, 40)).shape == (4, 9)


def test_components_of_a_mixture_are_drawn_with_their_weights():
    logits = torch.tensor([0.0, 1.0, -2.0])
    weights = mixture(logits, Independent(Normal(torch.zeros(3, 2), 1.0), 1)).mixture_distribution
    counts = torch.bincount(weights.sample((100_000,)), minlength=3)
    torch.testing.assert_close(counts / 100_000, logits.softmax(0), atol=0.01, rtol=0)
    assert weights.sample((2, 3)).shape == (2, 3)


def make_kernel_density():
    return KernelDensity(torch.randn(7, 5), 0.3 * (torch.eye(5) + torch.ones(5, 5).tril(-1)))


def test_a_kernel_density_is_a_mixture_with_equal_weights():
    density = make_kernel_density()
    covariance = density.scale_tril @ density.scale_tril.T
    normals = MultivariateNormal(density.centers, covariance)
    expected = MixtureSameFamily(Categorical(logits=torch.zeros(7)), normals)
    z = density.sample((200_000,))
    torch.testing.assert_close(density.log_prob(z[:20]), expected.log_prob(z[:20]))
    torch.testing.assert_close(z.mean(0), density.centers.mean(0), atol=0.02, rtol=0)
    total = covariance + torch.cov(density.centers.T, correction=0)
    torch.testing.assert_close(torch.cov(z.T), total, atol=0.03, rtol=0.02)
    assert density.sample((2, 3)).shape == (2, 3, 5) and density.sample().shape == (5,)


@pytest.mark.parametrize("num_centers", [1, 2, 2049, 10_000])
def test_the_largest_uniform_number_gives_the_last_kernel(num_centers, monkeypatch):
    density = KernelDensity(torch.arange(num_centers).view(-1, 1).float(), torch.zeros(1, 1))
    largest = 1 - 2**-24
    monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, largest))
    assert density.sample(torch.Size([3])).flatten().tolist() == [num_centers - 1] * 3


@pytest.mark.parametrize("kind", ["mixture", "kernel density"])
def test_mixtures_draw_the_same_latents_on_any_number_of_ranks(kind):
    normals = Independent(Normal(torch.randn(7, 5), 1.0), 1)
    latents = mixture(torch.randn(7), normals) if kind == "mixture" else make_kernel_density()
    seed_global(torch.device("cpu"), 0)
    expected = latents.sample((8,))
    shares = []
    for rank in range(2):
        with RankInvariantNoise((0,), torch.device("cpu"), rank, 2, 4):
            shares.append(latents.sample((4,)))
    assert torch.equal(torch.stack(shares, 1).flatten(0, 1), expected)


def test_mixture_of_other_components_uses_torch():
    components = MultivariateNormal(torch.randn(5, 3), torch.eye(3).expand(5, 3, 3))
    ours = mixture(torch.zeros(5), components)
    assert type(ours) is MixtureSameFamily
    expected = torch.logsumexp(components.log_prob(torch.zeros(3)), 0) - math.log(5)
    torch.testing.assert_close(ours.log_prob(torch.zeros(3)), expected)


def test_mean_of_is_exact_if_known_and_else_estimated_from_samples():
    class WithoutMean(Normal):
        @property
        def mean(self):
            raise NotImplementedError

    assert mean_of(Normal(torch.tensor([2.0]), 1.0)).item() == 2
    assert mean_of(WithoutMean(torch.tensor([2.0]), 0.1)).item() == pytest.approx(2, abs=0.05)
    assert mean_of(WithoutMean(torch.tensor([2.0]), 0.1)).item() != 2
