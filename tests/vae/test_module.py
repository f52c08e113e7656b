from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import SMALL_VAE, compose
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.training.devices import silence_warnings
from vaegan.training.non_finite_guard import NonFiniteGuard, NonFiniteStep
from vaegan.vae.evaluation_module import EvaluationModule
from vaegan.vae.model import VAE
from vaegan.vae.module import VAEModule
from vaegan.vae.objectives import DregObjective, ElboObjective

SOURCE = Shapes.Config(num_train=256, num_val=70, num_test=64).build()


@pytest.fixture
def run():
    return compose(
        *SMALL_VAE,
        "optimizer.lr=3e-3",
        "likelihood=gaussian",
        "likelihood.dequantize=false",
        "loader.eval_batch_size=32",
    )


def build_module(run):
    return VAEModule(VAE(SOURCE.image_shape, run), run.objective.build(), run, {})


def trainer(max_epochs=1, callbacks=(), precision="32-true"):
    silence_warnings()
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=list(callbacks),
    )


def test_validation_metrics_are_means_over_images_at_beta_one(run):
    """The last batch is smaller, so a mean over batches would differ. The run has beta = 0."""
    run.objective.beta = 0.0
    module = build_module(run)
    data = ImageDataModule(SOURCE, run.loader, seed=0)
    torch.manual_seed(5)
    (metrics,) = trainer().validate(module, data, verbose=False)
    torch.manual_seed(5)
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.val_dataloader()]
        expected = torch.cat(
            [ElboObjective.Config().build()(module.vae, images, 1.0).bound for images in batches]
        )
    assert len(expected) == 70
    assert metrics["val/elbo"] == pytest.approx(expected.mean().item(), rel=1e-5)
    assert metrics["val/elbo"] == pytest.approx(
        metrics["val/log_likelihood"] - metrics["val/kl"], rel=1e-5
    )


def test_training_raises_the_elbo(run):
    run.optimizer.lr, run.objective.beta_warmup_epochs = 3e-3, 0.0
    module, data = build_module(run), ImageDataModule(SOURCE, run.loader, seed=0)
    (before,) = trainer().validate(module, data, verbose=False)
    fit_trainer = trainer(8)
    fit_trainer.fit(module, data)
    assert fit_trainer.callback_metrics["val/elbo"] > before["val/elbo"] + 100
    assert fit_trainer.global_step == 8 * 4
    tags = ("elbo", "log_likelihood", "kl", "loss", "beta", "grad_norm")
    assert {f"train/{tag}" for tag in tags} <= fit_trainer.callback_metrics.keys()


def test_every_epoch_has_a_different_data_order(run):
    module, batches = build_module(run), []

    class BatchRecorder(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            batches.append(batch[0].clone())

    data = ImageDataModule(SOURCE, run.loader, seed=0)
    trainer(2, [BatchRecorder()]).fit(module, data)
    assert len(batches) == 8
    first_epoch, second_epoch = batches[:4], batches[4:]
    assert not any(map(torch.equal, first_epoch, second_epoch))


def test_beta_warm_up_uses_fractional_epochs(run):
    run.objective.beta_warmup_epochs = 2.0
    module, betas = build_module(run), []

    class BetaRecorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            betas.append(float(trainer.callback_metrics["train/beta"]))

    data = ImageDataModule(SOURCE, run.loader, seed=0)
    trainer(3, [BetaRecorder()]).fit(module, data)
    assert betas == pytest.approx([i / 8 for i in range(8)] + [1.0] * 4)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_training_and_validation_log_the_bound_of_the_objective(run, objective):
    """In validation a batch of 32 is scored in parts of 20 and 12 images, weighted by size."""
    run.objective = type(run.objective).base.choices[objective].Config(num_samples=5)
    run.loader.batch_size = 20
    module, data = build_module(run), ImageDataModule(SOURCE, run.loader, seed=0)
    fit_trainer = trainer(2)
    fit_trainer.fit(module, data)
    metrics = fit_trainer.callback_metrics
    for split in ("train", "val"):
        assert metrics[f"{split}/iw_bound"] >= metrics[f"{split}/elbo"]
    torch.manual_seed(5)
    (validated,) = trainer().validate(module, data, verbose=False)
    torch.manual_seed(5)
    dreg = DregObjective.Config(num_samples=5).build()
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.val_dataloader()]
        parts = [part for images in batches for part in images.split(20)]
        expected = torch.cat([dreg(module.vae, part, 1.0).bound for part in parts])
    assert validated["val/iw_bound"] == pytest.approx(expected.mean().item(), rel=1e-5)


def test_validation_counts_each_image_once_if_ranks_have_different_numbers(run, monkeypatch):
    """Lightning averages the weights over ranks, and rounds down: (7 + 6) / 2 would become 6."""
    module = build_module(run)
    module.trainer = SimpleNamespace(world_size=2)
    weights = []
    monkeypatch.setattr(module, "log_dict", lambda *_, batch_size, **__: weights.append(batch_size))
    for num_images in (7, 6):
        module.validation_step((torch.rand(num_images, *SOURCE.image_shape), None), 0)
    assert sum(weights) // 2 == 13


def test_diverged_training_raises(run):
    module, data = build_module(run), ImageDataModule(SOURCE, run.loader, seed=0)
    torch.nn.init.constant_(next(module.vae.decoder.parameters()), torch.nan)
    with pytest.raises(
        NonFiniteStep, match="train/log_likelihood is nan at iteration 0: the training has diverged"
    ):
        trainer(callbacks=[NonFiniteGuard(0)]).fit(module, data)
    message = "val/elbo is nan in epoch 0: training has diverged. Lower optimizer.lr"
    with pytest.raises(ValueError, match=message):
        trainer().validate(module, data, verbose=False)


def test_optimal_scale_is_updated_only_in_training(run):
    run.likelihood = type(run.likelihood)(scale="optimal", dequantize=False)
    module, data = build_module(run), ImageDataModule(SOURCE, run.loader, seed=0)
    trainer().validate(module, data, verbose=False)
    assert module.vae.likelihood.scale.num_batches == 0
    trainer(2).fit(module, data)
    assert module.vae.likelihood.scale.num_batches == 2 * 4
    stored = module.vae.likelihood.scale.mean_power.clone()
    trainer().validate(module, data, verbose=False)
    assert torch.equal(stored, module.vae.likelihood.scale.mean_power)


@pytest.mark.parametrize("score", ["validate", "test"])
def test_metrics_are_computed_in_float32_in_mixed_precision(run, score):
    module = build_module(run)
    data = ImageDataModule(SOURCE, run.loader, seed=0)
    results = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(5)
        results += getattr(trainer(precision=precision), score)(module, data, verbose=False)
    assert results[0] == results[1]


def test_evaluation_is_in_float32_in_mixed_precision(run):
    data = ImageDataModule(SOURCE, run.loader, seed=0)
    module = EvaluationModule(VAE(SOURCE.image_shape, run), 3, 100, target_seed=0)
    results = []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(5)
        trainer(precision=precision).test(module, data, verbose=False)
        results.append(module.metrics)
    assert results[0] == results[1]
