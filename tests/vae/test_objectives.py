import math

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from tests.linear_gaussian import LinearGaussian
from vaegan.vae.bounds import elbo, kl_by_dimension, log_mean_exp, weighted_samples
from vaegan.vae.model import VAE
from vaegan.vae.objectives import DregObjective, ElboObjective, IwaeObjective, Objective

SHAPE = (1, 12, 8)


TINY_NETS = [
    f"{net}.{size}" for net in ("encoder", "decoder") for size in ("width=2", "hidden_dim=8")
]


def build(*overrides, shape=SHAPE):
    return VAE(shape, compose("stage=vae", *SMALL_NETS, *overrides))


def gradients(vae, objective, x, beta=1.0, seed=3):
    torch.manual_seed(seed)
    vae.zero_grad()
    objective(vae, x, beta).loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in vae.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("name", sorted(Objective.choices))
@pytest.mark.parametrize(
    "prior, posterior", [("standard_normal", "diagonal_normal"), ("vamp_prior", "flow")]
)
def test_objective_gives_gradients_to_every_parameter_and_reports_a_bound(name, prior, posterior):
    small = ["prior.num_pseudo_inputs=10"] if prior == "vamp_prior" else []
    vae = build(f"prior={prior}", f"posterior={posterior}", *small)
    config = Objective.choices[name].Config()
    if hasattr(config, "num_samples"):
        config.num_samples = 4
    objective = config.build()
    output = objective(vae, torch.rand(5, *SHAPE), 0.5)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())
    assert output.bound.shape == output.elbo.value.shape == (5,)
    assert output.loss.shape == ()
    assert (output.bound >= output.elbo.value - 1e-3).all()


@pytest.mark.parametrize("name", sorted(Objective.choices))
def test_objective_works_with_networks_in_16_bit_precision(name):
    vae = build("posterior=full_normal", "prior=flow")
    with torch.autocast("cpu", torch.bfloat16):
        output = Objective.choices[name].Config().build()(vae, torch.rand(5, *SHAPE), 1.0)
    output.loss.backward()
    assert output.bound.dtype is torch.float32 and output.bound.isfinite().all()


@pytest.mark.parametrize("name", sorted(Objective.choices))
def test_reported_bound_does_not_depend_on_beta(name):
    vae, objective, x = build(), Objective.choices[name].Config().build(), torch.rand(5, *SHAPE)
    outputs = []
    for beta in (0.0, 1.0, 7.0):
        torch.manual_seed(0)
        outputs.append(objective(vae, x, beta))
    for output in outputs[1:]:
        torch.testing.assert_close(output.bound, outputs[0].bound)
    assert len({output.loss.item() for output in outputs}) == 3


def test_elbo_objective_returns_the_elbo_and_the_beta_weighted_loss():
    vae, x = build(), torch.rand(5, *SHAPE)
    torch.manual_seed(0)
    output = ElboObjective.Config().build()(vae, x, 0.5)
    torch.manual_seed(0)
    target = vae.likelihood.target(x)
    terms = elbo(vae, target, vae.encode(target), vae.latent_prior())
    torch.testing.assert_close(output.bound, terms.value)
    torch.testing.assert_close(output.loss, (0.5 * terms.kl - terms.log_likelihood).mean())


def test_encoder_and_likelihood_use_the_same_binarization():
    vae, inputs_seen = build(), []
    vae.encoder.register_forward_hook(lambda module, inputs, output: inputs_seen.append(inputs[0]))
    original = vae.likelihood.target
    vae.likelihood.target = lambda x: inputs_seen.append(original(x)) or inputs_seen[-1]
    ElboObjective.Config().build()(vae, torch.rand(5, *SHAPE), 1.0)
    assert len(inputs_seen) == 2 and inputs_seen[0] is inputs_seen[1]


def test_dimensions_below_the_free_bits_get_no_gradient():
    """Kingma et al. 2016: their KL counts as the constant `free_bits` in the loss."""
    vae, x = build(), torch.rand(64, *SHAPE)
    target = vae.likelihood.target(x, 0)
    dimensions = kl_by_dimension(vae.encode(target), vae.latent_prior()).mean(0).detach()
    free = dimensions.median().item() + 1e-4
    vae.likelihood.target = lambda x: target
    torch.manual_seed(0)
    with_free = ElboObjective.Config(free_bits=free).build()(vae, x, 1.0)
    torch.manual_seed(0)
    without = ElboObjective.Config().build()(vae, x, 1.0)
    expected = without.loss + (free - dimensions[dimensions < free]).sum()
    torch.testing.assert_close(with_free.loss, expected)
    torch.testing.assert_close(with_free.bound, without.bound)
    all_free = gradients(vae, ElboObjective.Config(free_bits=1e3).build(), x)
    without_kl = gradients(vae, ElboObjective.Config().build(), x, beta=0.0)
    for name, gradient in without_kl.items():
        torch.testing.assert_close(all_free[name], gradient)


def test_free_bits_are_shared_if_the_kl_does_not_split_into_dimensions():
    vae, x = build("prior=gaussian_mixture"), torch.rand(64, *SHAPE)
    torch.manual_seed(0)
    output = ElboObjective.Config(free_bits=10.0).build()(vae, x, 1.0)
    assert output.elbo.kl.mean() < 80
    torch.testing.assert_close(output.loss, 80 - output.elbo.log_likelihood.mean())


def test_iwae_loss_is_the_negative_mean_bound():
    vae, x = build(), torch.rand(5, *SHAPE)
    torch.manual_seed(0)
    output = IwaeObjective.Config(num_samples=7).build()(vae, x, 1.0)
    torch.manual_seed(0)
    target = vae.likelihood.target(x)
    samples = weighted_samples(vae, target, vae.encode(target), vae.latent_prior(), 7)
    torch.testing.assert_close(output.bound, log_mean_exp(samples.log_weights))
    torch.testing.assert_close(output.loss, -output.bound.mean())
    torch.testing.assert_close(output.elbo.value, samples.log_weights.mean(0), atol=1e-3, rtol=1e-5)


def test_dreg_reports_the_bound_instead_of_its_surrogate_loss():
    vae, x = build(), torch.rand(5, *SHAPE)
    outputs = []
    for choice in (IwaeObjective, DregObjective):
        torch.manual_seed(0)
        outputs.append(choice.Config(num_samples=7).build()(vae, x, 1.0))
    torch.testing.assert_close(outputs[1].bound, outputs[0].bound)
    assert abs(outputs[1].loss.item() + outputs[1].bound.mean().item()) > 0.01


@pytest.mark.parametrize(
    "posterior, prior, beta",
    [
        ("diagonal_normal", "standard_normal", 0.0),
        ("diagonal_normal", "standard_normal", 1.0),
        ("full_normal", "vamp_prior", 0.5),
        ("full_normal", "vamp_prior", 1.0),
    ],
)
def test_dreg_gradient_agrees_with_iwae(posterior, prior, beta):
    """Exactly for decoder and likelihood, in expectation for the encoder."""
    vae = build(
        f"posterior={posterior}",
        f"prior={prior}",
        "likelihood=gaussian",
        "latent_dim=2",
        "likelihood.scale=1",
        *TINY_NETS,
    )
    if prior == "vamp_prior":
        vae.prior.raw_inputs = torch.nn.Parameter(vae.prior.raw_inputs[:5].detach())
    x = torch.rand(3, *SHAPE)
    vae.likelihood.dequantize = False
    iwae, dreg = (
        IwaeObjective.Config(num_samples=8).build(),
        DregObjective.Config(num_samples=8).build(),
    )
    decoder = [gradients(vae, objective, x, beta) for objective in (iwae, dreg)]
    for name in decoder[0]:
        if name.startswith(("decoder", "likelihood")):
            torch.testing.assert_close(decoder[0][name], decoder[1][name])
    name = "encoder.head.bias"
    samples = {}
    for objective in (iwae, dreg):
        repeats = [gradients(vae, objective, x.repeat(50, 1, 1, 1), beta, i) for i in range(40)]
        samples[objective] = torch.stack([gradient[name] for gradient in repeats])
    error = (samples[dreg].var(0) / 40 + samples[iwae].var(0) / 40).sqrt()
    difference = samples[dreg].mean(0) - samples[iwae].mean(0)
    assert (difference.abs() < 5 * error + 1e-6).all()


class ShiftedPosterior(torch.nn.Module):
    """Exact posterior of a linear-Gaussian model whose mean is shifted by a parameter."""

    def __init__(self, encode):
        super().__init__()
        self.encode, self.shift = encode, torch.nn.Parameter(torch.zeros(2))

    def forward(self, features):
        exact = self.encode(features)
        return torch.distributions.MultivariateNormal(
            exact.mean + self.shift, exact.covariance_matrix
        )


def test_dreg_encoder_gradient_is_zero_at_the_exact_posterior():
    """All weights are equal there. The IWAE gradient is zero only in expectation."""
    norms = {}
    for choice in (IwaeObjective, DregObjective):
        model = LinearGaussian(offset=0.0)
        vae, images = model.vae, model.images(10)
        vae.likelihood.target = lambda x: x
        vae.encoder, vae.posterior = torch.nn.Identity(), ShiftedPosterior(model.encode)
        del vae.encode  # instance attribute that would bypass vae.posterior
        choice.Config(num_samples=5).build()(vae, images, 1.0).loss.backward()
        norms[choice] = vae.posterior.shift.grad.norm().item()
    assert norms[DregObjective] < 1e-4 and norms[IwaeObjective] > 0.01


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "discretized_logistic_mixture"])
def test_beta_has_the_same_meaning_for_any_batch_size_and_image_size(likelihood):
    """The log-likelihood is a sum over pixels, and the KL does not depend on the batch size."""
    config = compose("stage=vae", f"likelihood={likelihood}", "encoder=mlp", "decoder=mlp")
    vae = VAE((1, 6, 4), config)
    x = torch.randint(256, (4, 1, 6, 4)) / 255
    objective = ElboObjective.Config().build()
    target = vae.likelihood.target(x, 0)
    vae.likelihood.target = lambda x: target if len(x) == 4 else target.repeat(2, 1, 1, 1)
    wide = vae.likelihood.Config().build((1, 6, 8))
    params = vae.decoder_params(torch.randn(4, 32))
    one, two = vae.likelihood(params), wide(torch.cat([params, params], -1))
    torch.testing.assert_close(
        two.log_prob(torch.cat([target, target], -1)) / 48, one.log_prob(target) / 24
    )
    kl = objective(vae, x, 1.0).elbo.kl
    doubled = objective(vae, x.repeat(2, 1, 1, 1), 1.0).elbo.kl
    torch.testing.assert_close(doubled, kl.repeat(2))
    # beta = 1e6 makes the gradient that of the KL
    single = gradients(vae, objective, x, beta=1e6)
    double = gradients(vae, objective, x.repeat(2, 1, 1, 1), beta=1e6)
    for name in single:
        if name.startswith("encoder"):
            torch.testing.assert_close(double[name], single[name], rtol=1e-3, atol=1.0)


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("constant", [2.0, 2.0, 2.0, 2.0, 2.0]),
        ("linear", [0.0, 0.5, 1.0, 2.0, 2.0]),
        ("cosine", [0.0, 1 - math.sqrt(0.5), 1.0, 2.0, 2.0]),
        ("cyclical", [0.0, 1.0, 2.0, 0.0, 0.5]),
    ],
)
def test_beta_schedules(schedule, expected):
    config = ElboObjective.Config(beta=2.0, beta_schedule=schedule, beta_warmup_epochs=4.0)
    assert [config.beta_at(epoch) for epoch in (0, 1, 2, 4, 4.5)] == pytest.approx(expected)
    config = ElboObjective.Config(beta=0.5, beta_schedule=schedule, beta_warmup_epochs=0.0)
    assert config.beta_at(0) == 0.5


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: ElboObjective.Config(beta=-1.0), "beta must be at least 0; got -1.0"),
        (lambda: ElboObjective.Config(beta=math.nan), "beta must be at least 0; got nan"),
        (
            lambda: ElboObjective.Config(beta_warmup_epochs=-1.0),
            "beta_warmup_epochs must be at least 0",
        ),
        (
            lambda: ElboObjective.Config(beta_schedule="sigmoid"),
            "beta_schedule must be one of constant, linear, cosine, cyclical",
        ),
        (lambda: ElboObjective.Config(free_bits=-0.1), "free_bits must be at least 0"),
        (lambda: IwaeObjective.Config(num_samples=0), "num_samples must be at least 1"),
        (lambda: DregObjective.Config(num_samples=-5), "num_samples must be at least 1"),
    ],
)
def test_invalid_settings_raise(build, message):
    with pytest.raises(ValueError, match=message):
        build()
