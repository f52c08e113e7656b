"""Latents of the images that are scored."""

import pytest
import torch
from torch.distributions import Independent, Normal

from vaegan.gan.latents import LATENTS_PER_BLOCK, draw_latents

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
