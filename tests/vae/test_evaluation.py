import math

import pytest
import torch
from torch.distributions import Independent, Normal

from tests.conftest import SMALL_NETS, compose
from tests.linear_gaussian import LinearGaussian
from vaegan.vae.evaluation import (
    ImageScores,
    count_active_units,
    score_images,
    split_kl,
    summarize_scores,
)
from vaegan.vae.model import VAE

SHAPE = (1, 12, 8)


def build(*overrides):
    return VAE(SHAPE, compose("stage=vae", *SMALL_NETS, *overrides)).eval().requires_grad_(False)


def evaluate(vae, images, num_samples, chunk_size):
    scores = score_images(vae, vae.likelihood.target(images), num_samples, chunk_size)
    return summarize_scores(scores, vae.likelihood)


def test_nll_agrees_with_the_exact_evidence():
    model = LinearGaussian(offset=0.4)
    x = model.images(300)
    scores = score_images(model.vae, x, num_samples=1000, chunk_size=3000)
    metrics = summarize_scores(scores, model.vae.likelihood)
    exact = model.log_evidence(x).detach()
    assert metrics["nll"] == pytest.approx(-exact.mean().item(), abs=0.02)
    assert metrics["nll_standard_error"] == pytest.approx(exact.std().item() / 300**0.5, rel=0.02)


@pytest.mark.parametrize("posterior", ["diagonal_normal", "flow"])
@pytest.mark.parametrize("prior", ["standard_normal", "vamp_prior"])
def test_elbo_is_below_the_evidence_and_equals_log_likelihood_minus_kl(posterior, prior):
    small = ["prior.num_pseudo_inputs=5"] if prior == "vamp_prior" else []
    vae = build(f"posterior={posterior}", f"prior={prior}", *small)
    metrics = evaluate(vae, torch.rand(20, *SHAPE), 200, 1000)
    assert metrics["elbo"] <= -metrics["nll"]
    assert metrics["elbo"] == pytest.approx(metrics["log_likelihood"] - metrics["kl"])


@pytest.mark.parametrize("chunk_size", [8, 24, 57, 10_000])
def test_chunk_size_does_not_change_the_scores(chunk_size):
    """With the exact posterior every weight is p(x), so the samples make no difference."""
    model = LinearGaussian(offset=0.0)
    x = model.images(8)
    scores = score_images(model.vae, x, 50, chunk_size)
    torch.testing.assert_close(scores.log_evidence, model.log_evidence(x), atol=1e-3, rtol=0)


def test_at_most_chunk_size_latents_are_decoded_at_once():
    vae, sizes = build(), []
    vae.decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    score_images(vae, vae.likelihood.target(torch.rand(5, *SHAPE)), num_samples=33, chunk_size=20)
    assert max(sizes) == 20 and sum(sizes) == 5 * 33


def test_latent_moments_are_exact_if_the_posterior_has_closed_forms():
    vae = build()
    target = vae.likelihood.target(torch.rand(6, *SHAPE))
    scores, q = score_images(vae, target, 5000, 3000), vae.encode(target)
    assert torch.equal(scores.latent_mean, q.mean)
    assert torch.equal(scores.latent_variance, q.variance)
    assert (scores.latent_mean_error == 0).all()


def test_latent_moments_of_a_flow_are_estimated_with_their_standard_error():
    vae = build("posterior=flow")
    target = vae.likelihood.target(torch.rand(6, *SHAPE))
    few, many = score_images(vae, target, 50, 3000), score_images(vae, target, 5000, 3000)
    torch.testing.assert_close(few.latent_variance, many.latent_variance, atol=0.6, rtol=0.6)
    z_scores = (few.latent_mean - many.latent_mean) / few.latent_mean_error.sqrt()
    assert z_scores.square().mean().item() == pytest.approx(1, abs=0.6)


def test_active_units_are_the_latents_whose_mean_varies():
    means = torch.randn(5000, 3) * torch.tensor([0.5, 0.05, 0.2]) + 7
    assert count_active_units(means, torch.zeros(5000, 3)).item() == 2


@pytest.mark.parametrize("posterior", ["diagonal_normal", "flow"])
@pytest.mark.parametrize("num_samples", [20, 50])
def test_latents_independent_of_the_image_are_not_active(posterior, num_samples):
    vae = build(f"posterior={posterior}")
    torch.nn.init.zeros_(vae.encoder.head.weight)
    metrics = evaluate(vae, torch.rand(400, *SHAPE), num_samples, 4000)
    assert metrics["active_units"] <= 1


def test_non_finite_scores_raise():
    vae = build()
    scores = score_images(vae, vae.likelihood.target(torch.rand(4, *SHAPE)), 10, 100)
    with pytest.raises(ValueError, match=r"all scores must be finite .*got \['kl'\]"):
        summarize_scores(scores._replace(kl=scores.kl * torch.nan), vae.likelihood)
    with pytest.raises(ValueError, match="the number of images must be at least 2"):
        summarize_scores(ImageScores(*(values[:1] for values in scores)), vae.likelihood)


def test_metrics_of_a_known_latent_space():
    """The posterior mean of two latents varies over four images; that of the third is constant."""
    vae = build("latent_dim=3")
    scores = score_images(vae, vae.likelihood.target(torch.rand(4, *SHAPE)), 10, 100)
    mean = torch.tensor([[1.0, -2.0, 0.0], [3.0, 2.0, 0.0], [1.0, -2.0, 0.0], [3.0, 2.0, 0.0]])
    variance = torch.tensor([[0.0, 5.0, 1.0]] * 4)
    scores = scores._replace(latent_mean=mean, latent_variance=variance)
    metrics = summarize_scores(scores, vae.likelihood)
    assert metrics["active_units"] == 2
    assert metrics["aggregate_mean_max"] == 2
    assert metrics["aggregate_std_min"] == pytest.approx(1)
    assert metrics["aggregate_std_max"] == pytest.approx(3)


def test_split_kl_sums_to_the_mean_kl():
    torch.manual_seed(0)
    q = Independent(Normal(torch.randn(400, 2) * 2, 0.3), 1)
    p = Independent(Normal(torch.zeros(2), 1.0), 1)
    parts = split_kl(q, p)
    kl = torch.distributions.kl_divergence(q, p).mean().item()
    assert parts["mutual_information"] + parts["marginal_kl"] == pytest.approx(kl, abs=0.4)
    assert 1 < parts["mutual_information"] < math.log(400)


def test_disjoint_posteriors_have_mutual_information_log_n():
    q = Independent(Normal(torch.arange(50.0)[:, None] * 100, 1.0), 1)
    parts = split_kl(q, Independent(Normal(torch.zeros(1), 1.0), 1))
    assert parts["mutual_information"] == pytest.approx(math.log(50))


def test_posteriors_equal_to_the_prior_have_no_mutual_information():
    p = Normal(torch.zeros(2), 1.0)
    parts = split_kl(Independent(Normal(torch.zeros(50, 2), 1.0), 1), Independent(p, 1))
    assert parts["mutual_information"] == pytest.approx(0, abs=1e-6)
    assert parts["marginal_kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "likelihood, is_reported",
    [
        ("bernoulli", False),
        ("gaussian", True),
        ("categorical", True),
        ("continuous_bernoulli", True),
    ],
)
def test_bits_per_dim_are_reported_if_the_likelihood_defines_them(likelihood, is_reported):
    vae = build(f"likelihood={likelihood}")
    metrics = evaluate(vae, torch.rand(4, *SHAPE), 20, 100)
    assert ("bits_per_dim" in metrics) == is_reported
    if is_reported:
        nats_per_dim = metrics["nll"] / 96
        if not vae.likelihood.is_discrete:
            nats_per_dim += math.log(256)
        assert metrics["bits_per_dim"] == pytest.approx(nats_per_dim / math.log(2), rel=1e-5)
