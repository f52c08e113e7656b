import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from tests.conftest import SMALL_NETS, compose
from tests.linear_gaussian import LinearGaussian
from vaegan.probability.posteriors import Posterior
from vaegan.probability.priors import Prior
from vaegan.vae.bounds import (
    ELBO,
    closed_form_kl,
    elbo,
    kl_by_dimension,
    log_mean_exp,
    rsample_and_log_prob,
    weighted_samples,
)
from vaegan.vae.model import VAE

SHAPE = (1, 12, 8)


@pytest.mark.parametrize("prior", sorted(Prior.choices))
@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
def test_closed_form_kl_agrees_with_monte_carlo(posterior, prior):
    """A closed form exists if and only if both distributions are normal."""
    q_module = Posterior.choices[posterior].Config().build(4)
    with torch.no_grad():
        q = q_module(torch.randn(3, q_module.num_features))
        p_module = Prior.choices[prior].Config().build(4, (1, 2, 2))
        p = p_module(lambda x: q_module(x.flatten(1) @ torch.randn(4, q_module.num_features)))
        exact = closed_form_kl(q, p)
        assert (exact is not None) == (prior == "standard_normal" and posterior != "flow")
        if exact is not None:
            z, log_q = rsample_and_log_prob(q, 50_000)
            samples = log_q - p.log_prob(z)
            assert ((exact - samples.mean(0)).abs() < 6 * samples.std(0) / 50_000**0.5).all()


def test_kl_of_a_full_normal_agrees_with_torch():
    q = MultivariateNormal(torch.randn(5, 3), torch.eye(3) * 0.3)
    expected = kl_divergence(q, MultivariateNormal(torch.zeros(3), torch.eye(3)))
    torch.testing.assert_close(
        closed_form_kl(q, Independent(Normal(torch.zeros(3), 1.0), 1)), expected
    )


def test_closed_form_kl_is_none_for_other_priors():
    q = MultivariateNormal(torch.randn(5, 3), torch.eye(3) * 0.3)
    laplace = Independent(torch.distributions.Laplace(torch.zeros(3), 1.0), 1)
    assert closed_form_kl(q, laplace) is None


def test_kl_by_dimension_requires_independent_dimensions():
    q = Independent(Normal(torch.randn(5, 3), 0.4), 1)
    p = Independent(Normal(torch.zeros(3), 1.0), 1)
    dimensions = kl_by_dimension(q, p)
    assert dimensions.shape == (5, 3)
    torch.testing.assert_close(dimensions.sum(1), kl_divergence(q, p))
    assert kl_by_dimension(MultivariateNormal(torch.zeros(5, 3), torch.eye(3)), p) is None


def test_elbo_is_log_likelihood_minus_kl():
    vae = VAE(SHAPE, compose("stage=vae", "likelihood=gaussian", *SMALL_NETS)).eval()
    x = torch.rand(5, *SHAPE)
    q, p = vae.encode(x), vae.latent_prior()
    torch.manual_seed(3)
    terms = elbo(vae, x, q, p)
    torch.manual_seed(3)
    z = q.rsample((1,))[0]
    torch.testing.assert_close(terms.log_likelihood, vae.decode(z).log_prob(x))
    torch.testing.assert_close(terms.kl, kl_divergence(q, p))
    torch.testing.assert_close(terms.value, terms.log_likelihood - terms.kl)


def test_kl_without_a_closed_form_is_estimated_from_the_same_sample():
    vae = VAE(SHAPE, compose("stage=vae", "prior=gaussian_mixture", *SMALL_NETS)).eval()
    x = vae.likelihood.target(torch.rand(5, *SHAPE))
    q, p = vae.encode(x), vae.latent_prior()
    torch.manual_seed(3)
    terms = elbo(vae, x, q, p)
    torch.manual_seed(3)
    samples = weighted_samples(vae, x, q, p, 1)
    torch.testing.assert_close(terms.value, samples.log_weights[0])


def test_importance_weighted_bound_increases_with_samples_up_to_the_evidence():
    model = LinearGaussian(offset=0.3)
    x = model.images(200)
    exact = model.log_evidence(x).mean().item()
    bounds = []
    for num_samples in (1, 4, 16, 64, 256):
        q, p = model.vae.encode(x), model.vae.latent_prior()
        repeats = [
            log_mean_exp(weighted_samples(model.vae, x, q, p, num_samples).log_weights)
            for _ in range(40)
        ]
        bounds.append(torch.stack(repeats).mean().item())
    upper = [*bounds[1:], exact + 0.01]
    assert all(low < high for low, high in zip(bounds, upper, strict=True)), (bounds, exact)
    assert bounds[0] < exact - 0.1 and bounds[-1] == pytest.approx(exact, abs=0.02)


def test_elbo_equals_the_evidence_if_the_posterior_is_exact():
    model = LinearGaussian(offset=0.0)
    x = model.images(100)
    q, p = model.vae.encode(x), model.vae.latent_prior()
    values = torch.stack([weighted_samples(model.vae, x, q, p, 4).log_weights for _ in range(3)])
    torch.testing.assert_close(values, model.log_evidence(x).expand_as(values), atol=1e-3, rtol=0)


def test_log_mean_exp_is_the_log_of_the_mean_weight():
    log_weights = torch.tensor([[0.0, 1000.0], [math.log(3.0), 1000.0]])
    torch.testing.assert_close(log_mean_exp(log_weights), torch.tensor([math.log(2.0), 1000.0]))


@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
@pytest.mark.parametrize("prior", sorted(Prior.choices))
def test_elbo_gives_gradients_to_all_parameters(posterior, prior):
    small = ["prior.num_pseudo_inputs=5"] if prior == "vamp_prior" else []
    vae = VAE(
        SHAPE, compose("stage=vae", f"posterior={posterior}", f"prior={prior}", *small, *SMALL_NETS)
    )
    x = vae.likelihood.target(torch.rand(3, *SHAPE))
    q, p = vae.encode(x), vae.latent_prior()
    terms = elbo(vae, x, q, p)
    assert isinstance(terms, ELBO)
    (-terms.value.mean()).backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
@pytest.mark.parametrize("prior", sorted(Prior.choices))
def test_log_densities_are_computed_without_autocast(posterior, prior):
    """Samples from 16-bit matrix products would not follow their own log-density."""
    small = ["prior.num_pseudo_inputs=5"] if prior == "vamp_prior" else []
    vae = VAE(
        SHAPE, compose("stage=vae", f"posterior={posterior}", f"prior={prior}", *small, *SMALL_NETS)
    )
    vae.eval().requires_grad_(False)
    x = vae.likelihood.target(torch.rand(4, *SHAPE))
    with torch.autocast("cpu", torch.bfloat16):
        q, p = vae.encode(x), vae.latent_prior()
        samples = weighted_samples(vae, x, q, p, 20)
        kl = closed_form_kl(q, p)
    torch.testing.assert_close(samples.log_posterior, q.log_prob(samples.z), atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(samples.log_prior, p.log_prob(samples.z), atol=1e-2, rtol=1e-4)
    assert samples.log_likelihood.dtype is torch.float32
    if kl is not None:
        torch.testing.assert_close(kl, closed_form_kl(q, p), atol=1e-3, rtol=1e-4)
