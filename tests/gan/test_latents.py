"""Latents of the images that are scored."""

import pytest
import torch
from torch.distributions import Independent, Normal

from vaegan.gan.latents import LATENTS_PER_BLOCK, AggregatePosterior, draw_latents
from vaegan.probability.distributions import KernelDensity

STANDARD_NORMAL = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)


def test_a_latent_depends_only_on_seed_draw_and_index():
    z = draw_latents(STANDARD_NORMAL, 2 * LATENTS_PER_BLOCK + 7, seed=1)
    assert z.shape == (2 * LATENTS_PER_BLOCK + 7, 3)
    for num_latents in (1, LATENTS_PER_BLOCK, LATENTS_PER_BLOCK + 1):
        assert torch.equal(draw_latents(STANDARD_NORMAL, num_latents, seed=1), z[:num_latents])
    for other in ({"seed": 2}, {"seed": 1, "draw": 1}):
        assert not torch.equal(draw_latents(STANDARD_NORMAL, 5, **other), z[:5])


def test_latents_are_independent_draws_of_the_distribution():
    z = draw_latents(STANDARD_NORMAL, 5000, seed=0)
    assert len(z.unique(dim=0)) == 5000
    assert z.mean().item() == pytest.approx(0, abs=0.03)
    assert z.std().item() == pytest.approx(1, abs=0.03)


def test_drawing_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    draw_latents(STANDARD_NORMAL, 10, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


class FixedVAE:
    """VAE whose posterior of an image is a point, the image's pixels."""

    class likelihood:
        @staticmethod
        def target(images):
            return images

    def parameters(self):
        return iter([torch.zeros(1)])

    def encode(self, images):
        return Independent(Normal(images.flatten(1), 1e-9), 1)


def make_clusters(num_latents, latent_dim=4):
    """Return latents around three centers, (num_latents, latent_dim)."""
    centers = 5 * torch.randn(3, latent_dim)
    return centers[torch.arange(num_latents) % 3] + torch.randn(num_latents, latent_dim)


def fit(latents, bandwidth):
    aggregate = AggregatePosterior(latents.shape[1])
    aggregate.fit(FixedVAE(), [latents[:, :, None, None]], bandwidth)
    return aggregate


@pytest.mark.parametrize("bandwidth", [0.1, 0.5, 0.9, 1.0])
def test_an_aggregate_posterior_keeps_mean_and_covariance_for_any_bandwidth(bandwidth):
    latents = make_clusters(600)
    aggregate = fit(latents, bandwidth)
    z = aggregate().sample((100_000,))
    torch.testing.assert_close(z.mean(0), latents.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.cov(latents.T), atol=0.2, rtol=0.03)
    assert isinstance(aggregate(), KernelDensity) == (bandwidth != 1)
    aggregate.fit(FixedVAE(), [latents[:, :, None, None]], 1.0)
    assert aggregate.centers is None
    if bandwidth == 0.1:  # close to the data, unlike a single normal
        assert torch.cdist(z[:500], latents).amin(1).mean() < 1.5
