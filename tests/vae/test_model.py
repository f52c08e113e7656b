import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.gan.generator import Generator
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.priors import Prior
from vaegan.vae import model
from vaegan.vae.model import VAE, fit_constant_output, to_full_precision


def build(*overrides):
    return VAE(image_shape(overrides), compose("stage=vae", *SMALL_NETS, *overrides))


def image_shape(overrides):
    return (3, 16, 20) if "likelihood=gaussian" in overrides else (1, 16, 20)


@pytest.mark.parametrize("likelihood", sorted(Likelihood.choices))
def test_encode_and_decode_have_matching_shapes(likelihood):
    vae = build(f"likelihood={likelihood}")
    posterior = vae.encode(vae.likelihood.target(torch.rand(4, *vae.image_shape)))
    z = posterior.rsample((3,))
    assert z.shape == (3, 4, 8)
    decoded = vae.decode(z)
    assert (decoded.batch_shape, decoded.event_shape) == ((3, 4), vae.image_shape)
    torch.testing.assert_close(decoded.mean[1], vae.decode(z[1]).mean)


@pytest.mark.parametrize("prior", sorted(Prior.choices))
def test_latent_prior_has_latent_dim_dimensions(prior):
    assert build(f"prior={prior}").latent_prior().sample((5,)).shape == (5, 8)


@pytest.mark.parametrize("likelihood", sorted(Likelihood.choices))
def test_generator_is_the_mean_of_the_likelihood(likelihood):
    vae = build(f"likelihood={likelihood}")
    z = torch.randn(4, 8)
    assert torch.equal(Generator(vae.decoder, vae.likelihood)(z), vae.decode(z).mean)


def test_latent_dim_must_be_positive():
    with pytest.raises(ValueError, match="latent_dim must be at least 1; got 0"):
        compose("stage=vae", "latent_dim=0")


@pytest.mark.parametrize("likelihood", sorted(Likelihood.choices))
def test_initialize_fits_a_constant_decoder_output_to_training_images(likelihood):
    """For binary pixels the constant is close to the mean image."""
    vae = VAE(
        (1, 8, 12), compose("stage=vae", f"likelihood={likelihood}", "decoder=mlp", "latent_dim=8")
    )
    images = torch.linspace(0, 1, 256)[torch.randint(20, 90, (50, *vae.image_shape))]
    images[:, :, :4] = 0
    target = vae.likelihood.target(images)
    before = vae.decode(torch.zeros(1, 8)).log_prob(target).mean()
    vae.initialize(images)
    after = vae.decode(torch.zeros(1, 8)).log_prob(target).mean()
    assert after > before + 10
    params = fit_constant_output(vae.likelihood, target)
    assert params.shape == vae.likelihood.param_shape and params.abs().max() <= 6.01
    if likelihood == "bernoulli":
        torch.testing.assert_close(
            params.sigmoid(), target.mean(0).clamp(0.02, 0.98), atol=0.03, rtol=0
        )


def test_constant_output_does_not_depend_on_the_groups_of_images(monkeypatch):
    vae = build("likelihood=gaussian")
    target = vae.likelihood.target(torch.rand(7, *vae.image_shape))
    expected = fit_constant_output(vae.likelihood, target)
    monkeypatch.setattr(model, "VALUES_PER_GROUP", 3 * target[0].numel())  # groups of 3, 3 and 1
    params = fit_constant_output(vae.likelihood, target)
    torch.testing.assert_close(params, expected, rtol=0, atol=1e-3)


def test_initialize_raises_if_targets_lie_outside_the_support():
    vae = build()
    vae.likelihood.preprocess = lambda x, noise: x + 0.5
    with pytest.raises(ValueError, match="likelihood=bernoulli has the support .*; got a pixel"):
        vae.initialize(torch.rand(4, *vae.image_shape))


def test_full_precision_converts_16_bit_tensors_to_float32():
    assert to_full_precision(torch.ones(2, dtype=torch.bfloat16)).dtype is torch.float32
    assert to_full_precision(torch.ones(2, dtype=torch.float64)).dtype is torch.float64
