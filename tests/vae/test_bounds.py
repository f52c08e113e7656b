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
def test_kl_against_monte_carlo(posterior, prior):
    """Closed form where both are normal, else none; and it is right."""
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


def test_no_closed_form_is_claimed_against_other_priors():
    q = MultivariateNormal(torch.randn(5, 3), torch.eye(3) * 0.3)
    assert (
        closed_form_kl(q, Independent(torch.distributions.Laplace(torch.zeros(3), 1.0), 1)) is None
    )


def test_kl_splits_into_dimensions_where_both_sides_do():
    q, p = (
        Independent(Normal(torch.randn(5, 3), 0.4), 1),
        Independent(Normal(torch.zeros(3), 1.0), 1),
    )
    dimensions = kl_by_dimension(q, p)
    assert dimensions.shape == (5, 3)
    torch.testing.assert_close(dimensions.sum(1), kl_divergence(q, p))
    assert kl_by_dimension(MultivariateNormal(torch.zeros(5, 3), torch.eye(3)), p) is None


def test_elbo_is_its_two_terms_on_the_same_target():
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


def test_kl_without_a_closed_form_is_estimated_at_the_same_latent():
    vae = VAE(SHAPE, compose("stage=vae", "prior=gaussian_mixture", *SMALL_NETS)).eval()
    x = vae.likelihood.target(torch.rand(5, *SHAPE))
    q, p = vae.encode(x), vae.latent_prior()
    torch.manual_seed(3)
    terms = elbo(vae, x, q, p)
    torch.manual_seed(3)
    samples = weighted_samples(vae, x, q, p, 1)
    torch.testing.assert_close(terms.value, samples.log_weights[0])


def test_the_bound_rises_with_the_number_of_samples_up_to_the_evidence():
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
    assert all(low < high for low, high in zip(bounds, [*bounds[1:], exact + 0.01], strict=True)), (
        bounds,
        exact,
    )
    assert bounds[0] < exact - 0.1 and bounds[-1] == pytest.approx(exact, abs=0.02)


def test_the_elbo_is_the_evidence_where_the_posterior_is_exact():
    model = LinearGaussian(offset=0.0)
    x = model.images(100)
    q, p = model.vae.encode(x), model.vae.latent_prior()
    values = torch.stack([weighted_samples(model.vae, x, q, p, 4).log_weights for _ in range(3)])
    torch.testing.assert_close(values, model.log_evidence(x).expand_as(values), atol=1e-3, rtol=0)


def test_log_mean_exp_is_a_mean_of_weights():
    log_weights = torch.tensor([[0.0, 1000.0], [math.log(3.0), 1000.0]])
    torch.testing.assert_close(log_mean_exp(log_weights), torch.tensor([math.log(2.0), 1000.0]))


@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
@pytest.mark.parametrize("prior", sorted(Prior.choices))
def test_every_pair_has_gradients_for_all_of_its_parameters(posterior, prior):
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
def test_densities_are_in_full_precision_under_autocast(posterior, prior):
    """Samples of a 16-bit matrix product would not follow their own density."""
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
