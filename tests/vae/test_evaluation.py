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
    found = summarize_scores(scores, model.vae.likelihood)
    exact = model.log_evidence(x).detach()
    assert found["nll"] == pytest.approx(-exact.mean().item(), abs=0.02)
    assert found["nll_standard_error"] == pytest.approx(exact.std().item() / 300**0.5, rel=0.02)


@pytest.mark.parametrize("posterior", ["diagonal_normal", "flow"])
@pytest.mark.parametrize("prior", ["standard_normal", "vamp_prior"])
def test_the_elbo_is_below_the_evidence_and_is_its_two_terms(posterior, prior):
    small = ["prior.num_pseudo_inputs=5"] if prior == "vamp_prior" else []
    vae = build(f"posterior={posterior}", f"prior={prior}", *small)
    found = evaluate(vae, torch.rand(20, *SHAPE), 200, 1000)
    assert found["elbo"] <= -found["nll"]
    assert found["elbo"] == pytest.approx(found["log_likelihood"] - found["kl"])


@pytest.mark.parametrize("chunk_size", [8, 24, 57, 10_000])
def test_chunks_change_nothing_but_memory(chunk_size):
    """With the exact posterior every weight is p(x): a difference would come from the chunks."""
    model = LinearGaussian(offset=0.0)
    x = model.images(8)
    scores = score_images(model.vae, x, 50, chunk_size)
    torch.testing.assert_close(scores.log_evidence, model.log_evidence(x), atol=1e-3, rtol=0)


def test_no_more_latents_are_decoded_at_once_than_asked_for():
    vae, sizes = build(), []
    vae.decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    score_images(vae, vae.likelihood.target(torch.rand(5, *SHAPE)), num_samples=33, chunk_size=20)
    assert max(sizes) == 20 and sum(sizes) == 5 * 33


def test_latent_moments_are_those_of_the_posterior():
    vae = build()
    target = vae.likelihood.target(torch.rand(6, *SHAPE))
    scores, q = score_images(vae, target, 5000, 3000), vae.encode(target)
    assert torch.equal(scores.latent_mean, q.mean)
    assert torch.equal(scores.latent_variance, q.variance)
    assert (scores.mean_error == 0).all()


def test_latent_moments_of_a_flow_are_estimated_with_their_error():
    vae = build("posterior=flow")
    target = vae.likelihood.target(torch.rand(6, *SHAPE))
    few, many = score_images(vae, target, 50, 3000), score_images(vae, target, 5000, 3000)
    torch.testing.assert_close(few.latent_variance, many.latent_variance, atol=0.6, rtol=0.6)
    errors = (few.latent_mean - many.latent_mean) / few.mean_error.sqrt()
    assert errors.square().mean().item() == pytest.approx(1, abs=0.6)


def test_active_units_are_those_whose_mean_varies():
    means = torch.randn(5000, 3) * torch.tensor([0.5, 0.05, 0.2]) + 7
    assert count_active_units(means, torch.zeros(5000, 3)).item() == 2


@pytest.mark.parametrize("posterior", ["diagonal_normal", "flow"])
@pytest.mark.parametrize("num_samples", [20, 50])
def test_latents_that_ignore_the_image_are_not_active_however_few_the_samples(
    posterior, num_samples
):
    vae = build(f"posterior={posterior}")
    torch.nn.init.zeros_(vae.encoder.head.weight)
    metrics = evaluate(vae, torch.rand(400, *SHAPE), num_samples, 4000)
    assert metrics["active_units"] <= 1


def test_scores_that_are_not_finite_are_an_error():
    vae = build()
    scores = score_images(vae, vae.likelihood.target(torch.rand(4, *SHAPE)), 10, 100)
    with pytest.raises(ValueError, match=r"all scores must be finite .*got \['kl'\]"):
        summarize_scores(scores._replace(kl=scores.kl * torch.nan), vae.likelihood)
    with pytest.raises(ValueError, match="the number of images must be at least 2"):
        summarize_scores(ImageScores(*(values[:1] for values in scores)), vae.likelihood)


def test_metrics_of_a_known_latent_space():
    """Ten images spread over two latents; a third one is ignored."""
    vae = build("latent_dim=3")
    scores = score_images(vae, vae.likelihood.target(torch.rand(4, *SHAPE)), 10, 100)
    mean = torch.tensor([[1.0, -2.0, 0.0], [3.0, 2.0, 0.0], [1.0, -2.0, 0.0], [3.0, 2.0, 0.0]])
    variance = torch.tensor([[0.0, 5.0, 1.0]] * 4)
    scores = scores._replace(latent_mean=mean, latent_variance=variance)
    found = summarize_scores(scores, vae.likelihood)
    assert found["active_units"] == 2
    assert found["aggregate_mean_max"] == 2
    assert found["aggregate_std_min"] == pytest.approx(1)
    assert found["aggregate_std_max"] == pytest.approx(3)


def test_the_kl_splits_at_the_aggregate_posterior():
    torch.manual_seed(0)
    q = Independent(Normal(torch.randn(400, 2) * 2, 0.3), 1)
    p = Independent(Normal(torch.zeros(2), 1.0), 1)
    parts = split_kl(q, p)
    kl = torch.distributions.kl_divergence(q, p).mean().item()
    assert parts["mutual_information"] + parts["marginal_kl"] == pytest.approx(kl, abs=0.4)
    assert 1 < parts["mutual_information"] < math.log(400)


def test_posteriors_that_never_overlap_tell_which_image_it_was():
    q = Independent(Normal(torch.arange(50.0)[:, None] * 100, 1.0), 1)
    parts = split_kl(q, Independent(Normal(torch.zeros(1), 1.0), 1))
    assert parts["mutual_information"] == pytest.approx(math.log(50))


def test_posteriors_that_are_the_prior_tell_nothing():
    p = Normal(torch.zeros(2), 1.0)
    parts = split_kl(Independent(Normal(torch.zeros(50, 2), 1.0), 1), Independent(p, 1))
    assert parts["mutual_information"] == pytest.approx(0, abs=1e-6)
    assert parts["marginal_kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "likelihood, reported",
    [
        ("bernoulli", False),
        ("gaussian", True),
        ("categorical", True),
        ("continuous_bernoulli", True),
    ],
)
def test_bits_per_dim_where_they_mean_something(likelihood, reported):
    vae = build(f"likelihood={likelihood}")
    found = evaluate(vae, torch.rand(4, *SHAPE), 20, 100)
    assert ("bits_per_dim" in found) == reported
    if reported:
        volume = 0 if vae.likelihood.is_discrete else math.log(256)
        assert found["bits_per_dim"] == pytest.approx(
            (found["nll"] / 96 + volume) / math.log(2), rel=1e-5
        )
