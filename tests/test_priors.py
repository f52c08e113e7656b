import pytest
import torch

from vaegan.posteriors import Posterior
from vaegan.priors import Prior


@pytest.mark.parametrize("name", sorted(Prior.choices))
def test_a_prior_is_one_normalised_distribution_over_latents(name):
    prior = Prior.choices[name].Config().build(latent_dim=2)
    distribution = prior(lambda x: None)
    assert (distribution.batch_shape, distribution.event_shape) == ((), (2,))
    assert distribution.sample((5,)).shape == (5, 2)
    axis = torch.linspace(-12, 12, 801)
    z = torch.cartesian_prod(axis, axis)
    total = distribution.log_prob(z).exp().sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", sorted(Posterior.choices))
def test_a_posterior_is_differentiable_and_normalised_for_each_image(name):
    posterior = Posterior.choices[name].Config().build(latent_dim=2)
    features = torch.randn(3, posterior.num_features, requires_grad=True)
    distribution = posterior(features)
    assert (distribution.batch_shape, distribution.event_shape) == ((3,), (2,))
    axis = torch.linspace(-12, 12, 801)
    z = torch.cartesian_prod(axis, axis)
    total = distribution.log_prob(z[:, None].expand(-1, 3, 2)).exp().sum(0) * (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(total, torch.ones(3), atol=1e-3, rtol=0)
    distribution.rsample().sum().backward()
    assert features.grad.abs().sum() > 0
