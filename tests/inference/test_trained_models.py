"""The Python API of trained models."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import vaegan
from tests.conftest import compose
from tests.untrained import build, component, make_run, save_gan, save_vae
from vaegan.inference.trained_model import BLOCK_SIZE
from vaegan.probability.distributions import mean_of
from vaegan.stages.stage_table import run_stage


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the checkpoints of an untrained VAE and of a GAN from it."""
    folder = tmp_path_factory.mktemp("models")
    run = make_run()
    return {"vae": save_vae(folder / "vae.ckpt", run), "gan": save_gan(folder / "gan.ckpt", run)}


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_samples_do_not_depend_on_the_batch(paths, stage):
    model = vaegan.load(paths[stage])
    images = model.sample(40, seed=3)
    assert images.shape == (40, 1, 28, 28) and images.dtype == torch.float32
    assert 0 <= images.min() and images.max() <= 1 and not images.requires_grad
    assert len(images.unique(dim=0)) == 40
    parts = [model.sample(7, seed=3), model.sample(1, seed=10), model.sample(32, seed=11)]
    assert torch.equal(images, torch.cat(parts))
    shuffled = torch.stack(list(model.sample_seeds([20, 3, 41, 4])))
    assert torch.equal(shuffled, images[[17, 0, 38, 1]])


def test_samples_are_images_of_the_latents(paths):
    model = vaegan.load(str(paths["vae"]))
    z = model.sample_latents(range(5))
    torch.testing.assert_close(model.decode(z), model.sample(5))
    torch.testing.assert_close(model.decode(z.numpy()), build(make_run()).decode(z).mean)
    cold = model.sample(3, temperature=0.0)
    assert torch.equal(cold[0], cold[2])


@pytest.mark.parametrize("prior", ["gaussian_mixture", "vamp_prior", "flow"])
def test_samples_of_learned_priors(tmp_path, prior):
    settings = {"vamp_prior": {"num_pseudo_inputs": 5}}.get(prior, {})
    run = make_run(prior=component("prior", prior, **settings))
    model = vaegan.load(save_vae(tmp_path / "vae.ckpt", run))
    images = model.sample(20)
    assert torch.equal(images[17:], model.sample(3, seed=17))
    path = model.interpolate(3, 19, num=4)
    torch.testing.assert_close(path[[0, -1]], images[[3, 19]])
    assert not model.sample_latents([0]).requires_grad and not path.requires_grad


def test_a_gan_samples_from_its_aggregate_posterior_and_its_vae_from_the_prior(tmp_path):
    model = vaegan.load(save_gan(tmp_path / "gan.ckpt", make_run(), has_aggregate=True))
    assert isinstance(model, vaegan.TrainedGAN) and isinstance(model.vae, vaegan.TrainedVAE)
    difference = model.sample_latents([0, 1]) - model.vae.sample_latents([0, 1])
    torch.testing.assert_close(difference, torch.ones(2, 4))
    path = save_gan(tmp_path / "kernels.ckpt", make_run(), has_aggregate=True, num_centers=20)
    z = vaegan.load(path).sample_latents(range(8), temperature=0)
    assert len(z.unique()) > 1 and set(z.unique().tolist()) <= set(range(20))


def test_draws_have_the_mean_of_the_likelihood(paths):
    model = vaegan.load(paths["vae"])
    draws = torch.stack(list(model.sample_seeds(range(16), draw=True)))
    assert torch.equal(draws, torch.stack(list(model.sample_seeds(range(16), draw=True))))
    assert set(draws.unique().tolist()) == {0.0, 1.0}  # Bernoulli
    assert (draws - model.sample(16)).mean().abs() < 0.02


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_images_that_are_not_finite_are_rejected(paths, stage, monkeypatch):
    model = vaegan.load(paths[stage])
    monkeypatch.setattr(model, "_generate", lambda z: torch.full((len(z), 1, 28, 28), torch.nan))
    for call in (lambda: model.sample(2), lambda: model.decode(torch.zeros(1, model.latent_dim))):
        with pytest.raises(ValueError, match=r"\.ckpt contain nan or inf"):
            call()


def test_latents_and_draws_that_are_not_finite_are_rejected(paths, monkeypatch):
    model = vaegan.load(paths["vae"])
    with pytest.raises(ValueError, match="z must be finite; got nan or inf"):
        model.decode(torch.full((1, model.latent_dim), torch.nan))
    distribution = SimpleNamespace(sample=lambda: torch.full((1, 28, 28), torch.nan))
    with monkeypatch.context() as patch:
        patch.setattr(model.latents.vae.likelihood, "forward", lambda params: distribution)
        with pytest.raises(ValueError, match=r"\.ckpt contain nan or inf"):
            list(model.sample_seeds([0], draw=True))
    params = torch.full((BLOCK_SIZE, 1, 28, 28), torch.nan)  # torch.bernoulli raises an error
    monkeypatch.setattr(model.module, "decoder_params", lambda z: params)
    with pytest.raises(ValueError, match=r"\.ckpt contain nan or inf"):
        list(model.sample_seeds([0], draw=True))


def test_attributes(paths):
    for stage in ("vae", "gan"):
        model = vaegan.load(paths[stage])
        assert model.image_shape == (1, 28, 28) and model.latent_dim == 4
        assert model.class_names == ["disk", "square", "diamond"]
        assert model.to("cpu") is model and str(paths[stage]) in repr(model)


def test_encode_and_reconstruct(paths):
    model = vaegan.load(paths["vae"])
    images = torch.rand(3, 1, 28, 28)
    posterior = model.encode(images)
    vae = build(make_run())
    expected = vae.encode(vae.likelihood.target(images, 0))
    torch.testing.assert_close(posterior.mean, expected.mean)
    torch.testing.assert_close(posterior.stddev, expected.stddev)
    torch.testing.assert_close(
        model.reconstruct(images), vae.decode(mean_of(expected)).mean.detach()
    )
    assert not model.reconstruct(images.requires_grad_()).requires_grad


def test_scores_increase_with_the_number_of_samples_and_bound_the_likelihood(paths):
    model = vaegan.load(paths["vae"])
    images = torch.rand(4, 1, 28, 28)
    log_probs = [model.log_prob(images, num_samples=num) for num in (1, 30, 1000)]
    elbo = model.elbo(images, num_samples=1000)
    assert elbo.shape == (4,)
    assert (log_probs[2] > elbo).all() and log_probs[2].sum() > log_probs[0].sum()
    assert torch.equal(model.log_prob(images, 5), model.log_prob(images, 5))
    assert not torch.equal(model.log_prob(images, 5), model.log_prob(images, 5, seed=1))


def test_log_prob_equals_the_evaluation(paths, tmp_path):
    words = ["stage=evaluate", f"ckpt={paths['vae']}", "num_samples=7", "trainer.accelerator=cpu"]
    result = run_stage(compose(*words, "trainer.enable_progress_bar=false"), tmp_path)
    images = make_run().dataset.build().split("test").images
    model = vaegan.load(paths["vae"])
    assert -model.log_prob(images, num_samples=7).double().mean() == pytest.approx(
        result.metrics["test/nll"], abs=1e-9
    )
    assert model.elbo(images, num_samples=7).double().mean() == pytest.approx(
        result.metrics["test/elbo"], abs=1e-3
    )


def test_the_random_state_of_the_caller_is_kept(paths):
    model = vaegan.load(paths["vae"])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.sample(2)
    model.log_prob(torch.rand(1, 1, 28, 28, generator=torch.Generator()), num_samples=2)
    assert torch.equal(torch.rand(3), expected)


def test_inversion_improves_the_psnr(paths):
    model = vaegan.load(paths["gan"])
    images = model.sample(3, seed=50)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    result = model.invert(images, num_steps=30)
    assert result.z.shape == (3, 4) and (result.psnr_after > result.psnr_before).all()
    expected = -10 * (result.images - images).square().mean((1, 2, 3)).log10()
    torch.testing.assert_close(result.psnr_after, expected)
    assert not any(part.requires_grad for part in result)
    torch.testing.assert_close(model.decode(result.z), result.images)
    tuned = model.invert(images, num_steps=30, num_layers=2)
    assert (tuned.psnr_after > tuned.psnr_before).all()
    after = model.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with pytest.raises(ValueError, match="num_layers must be from 0 to"):
        model.invert(images, num_layers=99)


def test_methods_of_a_vae_are_named_for_a_gan(paths):
    model = vaegan.load(paths["gan"])
    with pytest.raises(AttributeError, match="a GAN has no encode; use .* model.vae.encode"):
        model.encode(torch.rand(1, 1, 28, 28))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = model.nonsense
    with pytest.raises(ValueError, match="a GAN has no p\\(x\\|z\\) to draw from"):
        next(model.sample_seeds([0], draw=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda model: model.sample(0), "n must be at least 1"),
        (lambda model: model.sample(1, seed=-1), "seed must be at least 0"),
        (lambda model: model.sample(1, temperature=-1), "temperature must be at least 0"),
        (lambda model: model.decode(torch.zeros(2, 5)), r"z must be latents of shape \(B, 4\)"),
        (lambda model: model.decode(torch.zeros(4)), r"z must be latents of shape \(B, 4\)"),
        (lambda model: model.log_prob(torch.rand(1, 1, 28, 28), 0), "num_samples must be at least"),
        (lambda model: model.encode(torch.rand(1, 1, 9, 9)), r"images must have the shape"),
        (lambda model: model.to("nonsense"), "device=nonsense is not available here"),
        (lambda model: vaegan.load("nowhere"), "path=nowhere does not exist"),
    ],
)
def test_invalid_arguments_are_rejected(paths, call, message):
    with pytest.raises(ValueError, match=message):
        call(vaegan.load(paths["vae"]))


def test_a_file_of_another_kind_is_rejected(tmp_path):
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="other.ckpt is not a vaegan checkpoint"):
        vaegan.load(other)
    (tmp_path / "text.ckpt").write_text("text")
    with pytest.raises(ValueError, match="text.ckpt is refused"):
        vaegan.load(tmp_path / "text.ckpt")


def test_the_package_imports_fast():
    code = "import sys, time; start = time.perf_counter(); import vaegan; "
    code += "assert time.perf_counter() - start < 0.2; assert 'torch' not in sys.modules; "
    code += "assert {'load', 'run'} <= set(dir(vaegan))"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = vaegan.nonsense


def test_an_error_while_the_vae_of_a_gan_is_built_is_not_hidden(paths, monkeypatch):
    def fail(self, checkpoint):
        raise AttributeError("the cause")

    monkeypatch.setattr("vaegan.inference.trained_gan.TrainedVAE.__init__", fail)
    with pytest.raises(AttributeError, match="the cause"):
        _ = vaegan.load(paths["gan"]).vae
