import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.likelihoods import Likelihood
from vaegan.models import VAE, Generator
from vaegan.priors import Prior

SHAPE = (3, 16, 20)


def build(*overrides):
    return VAE(compose("stage=vae", *SMALL_NETS, *overrides), SHAPE)


@pytest.mark.parametrize("likelihood", sorted(Likelihood.choices))
def test_the_parts_fit_together(likelihood):
    vae = build(f"likelihood={likelihood}")
    posterior = vae.encode(vae.likelihood.target(torch.rand(4, *SHAPE)))
    z = posterior.rsample()
    assert z.shape == (4, 8)
    assert vae.decode(z).event_shape == SHAPE


@pytest.mark.parametrize("prior", sorted(Prior.choices))
def test_latents_come_from_the_prior(prior):
    assert build(f"prior={prior}").latent_prior().sample((5,)).shape == (5, 8)


@pytest.mark.parametrize("likelihood", sorted(Likelihood.choices))
def test_the_generator_is_the_mean_of_the_likelihood(likelihood):
    vae = build(f"likelihood={likelihood}")
    z = torch.randn(4, 8)
    assert torch.equal(Generator(vae.decoder, vae.likelihood)(z), vae.decode(z).mean)


def test_latent_dim_must_be_positive():
    with pytest.raises(ValueError, match="latent_dim must be at least 1; got 0"):
        compose("stage=vae", "latent_dim=0")
