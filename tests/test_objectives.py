import pytest
import torch
from torch.distributions import Independent, Normal

from tests.conftest import SMALL_NETS, compose
from vaegan.models import VAE
from vaegan.objectives import ELBO, ObjectiveConfig, elbo, kl, training_loss
from vaegan.posteriors import Posterior
from vaegan.priors import Prior

SHAPE = (1, 12, 8)


@pytest.mark.parametrize("prior", sorted(Prior.choices))
@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
def test_kl_against_monte_carlo(posterior, prior):
    q_module = Posterior.choices[posterior].Config().build(4)
    q = q_module(torch.randn(3, q_module.num_features).double())
    p = Prior.choices[prior].Config().build(4)(lambda x: None)
    z = q.rsample((50_000,))
    samples = q.log_prob(z) - p.log_prob(z)
    expected, error = samples.mean(0), samples.std(0) / 50_000**0.5
    actual = kl(q, p, q.rsample((50_000,))).reshape(-1, 3).mean(0)  # one number in closed form, else 50,000
    assert ((actual - expected).abs() < 7 * error).all()


def test_kl_without_a_closed_form_is_estimated_at_z():
    q = Independent(Normal(torch.zeros(2, 3), 1.0), 1)
    p = torch.distributions.MultivariateNormal(torch.ones(3), torch.eye(3))
    z = torch.randn(2, 3)
    torch.testing.assert_close(kl(q, p, z), q.log_prob(z) - p.log_prob(z))


def test_elbo_is_its_two_terms_on_the_same_target():
    vae = VAE(compose("stage=vae", "likelihood=gaussian", *SMALL_NETS), SHAPE)
    x = torch.rand(5, *SHAPE)
    torch.manual_seed(3)
    terms = elbo(vae, x)
    torch.manual_seed(3)
    q = vae.encode(x)
    z = q.rsample()
    torch.testing.assert_close(terms.log_likelihood, vae.decode(z).log_prob(x))
    torch.testing.assert_close(terms.kl, torch.distributions.kl_divergence(q, vae.latent_prior()))
    torch.testing.assert_close(terms.value, terms.log_likelihood - terms.kl)


def test_bernoulli_scores_the_images_that_it_encoded():
    """One binarization serves encoder and likelihood: with another for each, the ELBO would be another bound."""
    vae = VAE(compose("stage=vae", *SMALL_NETS), SHAPE)
    seen = []
    vae.encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    original = vae.likelihood.target
    vae.likelihood.target = lambda x: seen.append(original(x)) or seen[-1]
    elbo(vae, torch.rand(5, *SHAPE))
    assert len(seen) == 2 and seen[0] is seen[1]


def test_the_bound_lies_below_the_exact_evidence():
    """A linear decoder with Gaussian noise has a Gaussian evidence, known exactly."""
    vae = VAE(compose("stage=vae", "likelihood=gaussian", "likelihood.scale=0.5", "latent_dim=2"), (1, 4, 4))

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 16) * 0.3)

        def forward(self, z):
            return (z @ self.weight).view(-1, 1, 4, 4)

    vae.decoder = Linear()
    vae.likelihood.forward = lambda mean: Independent(Normal(mean, 0.5), 3)
    x = torch.randn(200, 1, 4, 4)
    covariance = vae.decoder.weight.T @ vae.decoder.weight + 0.25 * torch.eye(16)
    exact = torch.distributions.MultivariateNormal(torch.zeros(16), covariance).log_prob(x.flatten(1))
    precision = torch.eye(2) + vae.decoder.weight @ vae.decoder.weight.T / 0.25
    mean = torch.linalg.solve(precision, vae.decoder.weight @ x.flatten(1).T / 0.25).T
    exact_posterior = torch.distributions.MultivariateNormal(mean, precision_matrix=precision)
    vae.encode = lambda _: exact_posterior
    vae.latent_prior = lambda: torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    tight = torch.stack([elbo(vae, x).value for _ in range(200)]).mean(0)
    torch.testing.assert_close(tight.mean(), exact.mean(), atol=0.05, rtol=0)
    vae.encode = lambda _: torch.distributions.MultivariateNormal(mean + 0.3, precision_matrix=precision)
    loose = torch.stack([elbo(vae, x).value for _ in range(200)]).mean(0)
    assert loose.mean() < exact.mean() - 0.1


def test_the_loss_weighs_the_kl_and_the_report_does_not():
    terms = ELBO(torch.tensor([-3.0, -5.0]), torch.tensor([1.0, 2.0]))
    assert training_loss(terms, beta=0.5).item() == pytest.approx((3.5 + 6.0) / 2)
    assert terms.value.tolist() == [-4.0, -7.0]


def test_beta_rises_linearly_over_its_warmup():
    objective = ObjectiveConfig(beta=2.0, beta_warmup_epochs=4.0)
    assert [objective.beta_at(epoch) for epoch in (0, 1, 4, 9)] == [0.0, 0.5, 2.0, 2.0]
    assert ObjectiveConfig(beta=0.5, beta_warmup_epochs=0.0).beta_at(0) == 0.5


@pytest.mark.parametrize("key", ["beta", "beta_warmup_epochs"])
def test_bad_settings_are_refused(key):
    with pytest.raises(ValueError, match=f"{key} must be at least 0"):
        ObjectiveConfig(**{key: -1.0})
