"""Latents by seed: their distribution, and paths that stay in it."""

import pytest
import torch
import zuko
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

from vaegan.inference.latent_sampler import (
    FlowSampler,
    GaussianSampler,
    GenericSampler,
    interpolate_spherically,
    make_sampler,
)
from vaegan.probability.distributions import KernelDensity, mixture

D = 3
MEANS = torch.tensor([[-5.0, 0.0, 0.0], [5.0, 0.0, 1.0]])


def normal(loc=1.0, scale=2.0):
    return Independent(Normal(torch.full((D,), loc), torch.full((D,), scale)), 1)


def normals():
    return Independent(Normal(MEANS, torch.full((2, D), 0.5)), 1)


def full_normal():
    scale_tril = torch.tensor([[2.0, 0, 0], [1.0, 0.5, 0], [0, -1.0, 1.0]])
    return MultivariateNormal(torch.ones(D), scale_tril=scale_tril)


def kernel_density():
    scale_tril = full_normal().scale_tril
    noise = torch.randn(100, D, generator=torch.Generator().manual_seed(0))
    return KernelDensity(1 + 0.8 * noise @ scale_tril.T, 0.6 * scale_tril)


def flow():
    torch.manual_seed(0)
    with torch.no_grad():
        return zuko.flows.NSF(D, transforms=2, hidden_features=[16])()


DISTRIBUTIONS = {
    "normal": normal,
    "full": full_normal,
    "mixture": lambda: mixture(torch.tensor([0.0, 1.0]), normals()),
    "kernel density": kernel_density,
    "flow": flow,
}


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@torch.no_grad()
def test_latents_of_many_seeds_have_the_moments_of_the_distribution(make):
    z = make_sampler(make()).latents(range(4000))
    expected = make().sample((40_000,))
    error = (z.mean(0) - expected.mean(0)).abs() / (expected.std(0) / 4000**0.5)
    assert error.max() < 4
    torch.testing.assert_close(z.std(0), expected.std(0), rtol=0.05, atol=0)
    torch.testing.assert_close(torch.corrcoef(z.T), torch.corrcoef(expected.T), rtol=0, atol=0.06)


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@torch.no_grad()
def test_a_path_connects_the_latents_of_two_seeds_and_keeps_the_distribution(make):
    sampler = make_sampler(make())
    path = sampler.path(3, 8, 5)
    assert path.shape == (5, D)
    torch.testing.assert_close(path[[0, -1]], sampler.latents([3, 8]))
    middles = torch.stack([sampler.path(i, i + 1, 3)[1] for i in range(0, 1000, 2)])
    expected = make().sample((20_000,))
    if make is not DISTRIBUTIONS["mixture"]:  # whose paths pass between the components
        torch.testing.assert_close(middles.std(0), expected.std(0), rtol=0.2, atol=0)


def test_a_path_between_kernels_keeps_the_distance_from_their_mean():
    scale_tril = full_normal().scale_tril
    noise = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [-9.0, 0, 0], [0, -9.0, 0]])
    sampler = make_sampler(KernelDensity(noise @ scale_tril.T, 0.1 * scale_tril))
    start, end = (next(s for s in range(99) if sampler.components([s]) == k) for k in (0, 1))
    path = sampler.path(start, end, 9)
    whitened = torch.linalg.solve_triangular(scale_tril, path.T, upper=False).T
    torch.testing.assert_close(whitened.norm(dim=1), torch.full((9,), 9.0), atol=0.5, rtol=0)


def test_a_path_may_start_at_the_mean():
    sampler = make_sampler(KernelDensity(torch.zeros(1, D), torch.eye(D)))
    assert torch.equal(sampler.path(3, 8, 5, temperature=0.0), torch.zeros(5, D))


@torch.no_grad()
def test_a_straight_path_would_leave_a_normal_prior():
    """The reason for spherical paths: the middle of a straight one has a smaller norm."""
    noise = torch.randn(2, 512)
    middle = interpolate_spherically(noise, torch.tensor([0.5]))[0]
    assert noise.mean(0).norm() < 0.8 * noise[0].norm()
    assert middle.norm() == pytest.approx(float(noise.norm(dim=1).mean()), rel=0.05)


def test_a_path_of_a_mixture_keeps_the_scale_of_its_components():
    """The middle is a draw from the Wasserstein barycenter of the two components."""
    sampler = make_sampler(mixture(torch.zeros(2), normals()))
    pairs = [(i, i + 1) for i in range(0, 2000, 2)]
    pairs = [pair for pair in pairs if sampler.components(pair).tolist() == [0, 1]]
    middles = torch.stack([sampler.path(*pair, 3)[1] for pair in pairs])
    torch.testing.assert_close(middles.mean(0), MEANS.mean(0), rtol=0, atol=0.15)
    torch.testing.assert_close(middles.std(0), torch.full((D,), 0.5), rtol=0.15, atol=0)


@pytest.mark.parametrize("make", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@torch.no_grad()
def test_temperature_zero_gives_the_center(make):
    z = make_sampler(make()).latents(range(50), temperature=0.0)
    num_centers = {"mixture": range(2, 3), "kernel density": range(20, 51)}
    name = next(name for name in DISTRIBUTIONS if DISTRIBUTIONS[name] is make)
    assert len(z.mul(1e4).round().unique(dim=0)) in num_centers.get(name, range(1, 2))


@torch.no_grad()
def test_a_latent_depends_on_its_seed_only():
    for make in DISTRIBUTIONS.values():
        sampler = make_sampler(make())
        all_latents = sampler.latents(range(20))
        torch.testing.assert_close(all_latents[[7, 2]], sampler.latents([7, 2]))


def test_other_distributions_are_sampled_but_have_no_temperature():
    sampler = make_sampler(Independent(Uniform(torch.zeros(D), torch.ones(D)), 1))
    assert isinstance(sampler, GenericSampler)
    z = sampler.latents([4, 5])
    assert z.shape == (2, D) and 0 <= z.min() and z.max() <= 1 and not torch.equal(*z)
    torch.testing.assert_close(sampler.path(4, 5, 3)[1], z.mean(0))
    with pytest.raises(ValueError, match="temperature must be 1 for this latent distribution"):
        sampler.latents([4], 0.5)


def test_the_sampler_follows_the_distribution():
    assert isinstance(make_sampler(flow()), FlowSampler)
    assert isinstance(make_sampler(full_normal()), GaussianSampler)
