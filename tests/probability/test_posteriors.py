import pytest
import torch

from vaegan.probability.distributions import mean_of
from vaegan.probability.posteriors import DiagonalNormal, FlowPosterior, FullNormal, Posterior
from vaegan.vae.bounds import rsample_and_log_prob


@pytest.mark.parametrize("name", sorted(Posterior.choices))
def test_posterior_is_normalized_and_differentiable(name):
    posterior = Posterior.choices[name].Config().build(2)
    features = torch.randn(3, posterior.num_features, requires_grad=True)
    distribution = posterior(features)
    assert (distribution.batch_shape, distribution.event_shape) == ((3,), (2,))
    axis = torch.linspace(-12, 12, 401)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = distribution.log_prob(z[:, None].expand(-1, 3, 2)).exp()
        total = density.sum(0) * (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(total, torch.ones(3), atol=1e-3, rtol=0)
    distribution.rsample().sum().backward()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(Posterior.choices))
def test_samples_agree_with_their_log_density_and_with_the_mean(name):
    posterior = Posterior.choices[name].Config().build(4)
    with torch.no_grad():
        distribution = posterior(torch.randn(3, posterior.num_features))
        z, log_prob = rsample_and_log_prob(distribution, 5000)
        assert z.shape == (5000, 3, 4) and log_prob.shape == (5000, 3)
        torch.testing.assert_close(log_prob, distribution.log_prob(z), atol=1e-3, rtol=1e-4)
        error = 6 * z.std(0) * (1 / 5000 + 1 / 64) ** 0.5
        assert ((z.mean(0) - mean_of(distribution)).abs() < error).all()


def test_diagonal_normal_splits_features_into_mean_and_scale():
    features = torch.tensor([[1.0, -2.0, 0.0, 30.0]])
    distribution = DiagonalNormal.Config(min_scale=0.5).build(2)(features)
    assert distribution.mean.tolist() == [[1.0, -2.0]]
    torch.testing.assert_close(
        distribution.stddev, torch.tensor([[torch.tensor(2.0).log().item() + 0.5, 30.5]])
    )


def test_full_normal_splits_features_into_mean_and_cholesky_factor():
    features = torch.tensor([[1.0, -2.0, 0.5, 0.0, 30.0, 0.0, 0.7, -0.2, 1.5]])
    distribution = FullNormal.Config(min_scale=0.5).build(3)(features)
    log2 = torch.tensor(2.0).log().item()
    factor = torch.tensor([[log2 + 0.5, 0, 0], [0.7, 30.5, 0], [-0.2, 1.5, log2 + 0.5]])
    assert distribution.mean.tolist() == [[1.0, -2.0, 0.5]]
    torch.testing.assert_close(distribution.covariance_matrix, (factor @ factor.mT)[None])


def test_flow_latents_are_correlated_and_depend_on_the_context():
    posterior = FlowPosterior.Config().build(3)
    features = torch.zeros(1, posterior.num_features)
    z = posterior(features).rsample((4000,)).squeeze(1).detach()
    assert torch.corrcoef(z.mT).triu(1).abs().max() > 0.02
    other = features.clone()
    other[:, 6:] = 2.0
    assert not torch.allclose(posterior(features).log_prob(z[:5]), posterior(other).log_prob(z[:5]))


@pytest.mark.parametrize("name", sorted(Posterior.choices))
def test_log_density_is_finite_for_extreme_features(name):
    posterior = Posterior.choices[name].Config().build(1)
    features = torch.full((1, posterior.num_features), -1e6)
    features[:, :1] = 0
    features[:, 2:] = 0
    assert posterior(features).log_prob(torch.zeros(1, 1)).isfinite().all()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: DiagonalNormal.Config(min_scale=0.0), "min_scale must be positive"),
        (lambda: FullNormal.Config(min_scale=-1.0), "min_scale must be positive"),
        (lambda: FlowPosterior.Config(num_transforms=0), "num_transforms must be at least 1"),
        (lambda: FlowPosterior.Config(context_dim=0), "context_dim must be in 1 to 4096"),
        (
            lambda: FlowPosterior.Config(hidden_dims=[8, 0]),
            "hidden_dims must be a list of numbers from 1 to 4096",
        ),
    ],
)
def test_invalid_settings_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()
