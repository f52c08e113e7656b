import pytest
import torch
from torch.distributions import Independent, Normal

from vaegan.probability.posteriors import Posterior
from vaegan.probability.priors import FlowPrior, GaussianMixture, Prior, VampPrior

SHAPE = (1, 4, 4)
VARIANTS = {name: choice.Config() for name, choice in Prior.choices.items()} | {
    "real_nvp": FlowPrior.Config(kind="affine"),
    "vamp_prior": VampPrior.Config(num_pseudo_inputs=20),
}


def encode(x):
    """Return posteriors over two latents, batch shape (K,), of K images."""
    flat = x.flatten(1)
    return Independent(Normal(flat[:, :2] * 4 - 2, 0.2 + flat[:, 2:4]), 1)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_prior_is_normalized_and_agrees_with_its_samples(name):
    prior = VARIANTS[name].build(2, SHAPE)
    prior.initialize(torch.rand(prior.num_initial_images, *SHAPE))
    with torch.no_grad():
        distribution = prior(encode)
        assert (distribution.batch_shape, distribution.event_shape) == ((), (2,))
        assert distribution.sample((5,)).shape == (5, 2)
        axis = torch.linspace(-12, 12, 401)
        z = torch.cartesian_prod(axis, axis)
        total = distribution.log_prob(z).exp().sum() * (axis[1] - axis[0]) ** 2
        samples = distribution.sample((20_000,))
        mean = (distribution.log_prob(z).exp()[:, None] * z).sum(0) * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1, abs=2e-3)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_training_a_prior_raises_the_log_density_of_bimodal_latents(name):
    """All parameters of the prior get gradients."""
    prior = VARIANTS[name].build(2, SHAPE)
    z = torch.randn(256, 2) * 0.3 + torch.tensor([[1.5, -1.0]]) * torch.randn(256, 1).sign()
    parameters = list(prior.parameters())
    before = prior(encode).log_prob(z).mean().item()
    if name == "standard_normal":
        assert not parameters
        return
    optimizer = torch.optim.Adam(parameters, 0.003)
    for _ in range(150):
        optimizer.zero_grad()
        (-prior(encode).log_prob(z).mean()).backward()
        assert all(parameter.grad is not None for parameter in parameters)
        optimizer.step()
    assert prior(encode).log_prob(z).mean().item() > before + 0.2


@pytest.mark.parametrize("posterior", sorted(Posterior.choices))
def test_vamp_prior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs(posterior):
    prior = VampPrior.Config(num_pseudo_inputs=7).build(3, SHAPE)
    images = torch.rand(7, *SHAPE)
    prior.initialize(images)
    torch.testing.assert_close(prior.raw_inputs.sigmoid(), images.clamp(0.01, 0.99))
    module = Posterior.choices[posterior].Config().build(3)
    weights = torch.randn(16, module.num_features)

    def encode(x):
        return module(x.flatten(1) @ weights)

    z = torch.randn(5, 3)
    components = [encode(image[None]).log_prob(z) for image in images.clamp(0.01, 0.99)]
    expected = torch.logsumexp(torch.stack(components), 0) - torch.tensor(7.0).log()
    torch.testing.assert_close(prior(encode).log_prob(z), expected, atol=1e-4, rtol=1e-4)
    assert prior(encode).sample((4,)).shape == (4, 3)


def test_gaussian_mixture_starts_close_to_the_standard_normal():
    samples = GaussianMixture.Config(num_components=500).build(3, SHAPE)(encode).sample((20_000,))
    torch.testing.assert_close(samples.mean(0), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(samples.std(0), torch.ones(3), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: GaussianMixture.Config(num_components=0),
            "num_components must be at least 1; got 0",
        ),
        (lambda: GaussianMixture.Config(min_scale=0.0), "min_scale must be in"),
        (lambda: GaussianMixture.Config(min_scale=0.9), "min_scale must be in"),
        (
            lambda: VampPrior.Config(num_pseudo_inputs=0),
            "num_pseudo_inputs must be at least 1; got 0",
        ),
        (lambda: FlowPrior.Config(kind="planar"), "kind must be spline or affine; got 'planar'"),
        (lambda: FlowPrior.Config(num_transforms=0), "num_transforms must be at least 1"),
        (
            lambda: FlowPrior.Config(hidden_dims=[0]),
            "hidden_dims must be a list of numbers of at least 1",
        ),
        (
            lambda: FlowPrior.Config().build(1, SHAPE),
            "latent_dim must be at least 2 for prior=flow; got 1",
        ),
    ],
)
def test_invalid_settings_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()
