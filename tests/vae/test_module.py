import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import SMALL_VAE, compose
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.training.devices import silence_warnings
from vaegan.training.non_finite_guard import NonFiniteGuard, NonFiniteStep
from vaegan.vae.model import VAE
from vaegan.vae.module import VAEModule
from vaegan.vae.objectives import DregObjective, ElboObjective

SOURCE = Shapes.Config(num_train=256, num_val=70, num_test=64).build()


@pytest.fixture
def run():
    return compose(
        *SMALL_VAE,
        "likelihood=gaussian",
        "likelihood.dequantize=false",
        "loader.eval_batch_size=32",
    )


def module_of(run):
    return VAEModule(VAE(SOURCE.image_shape, run), run.objective.build(), run, {})


def trainer(max_epochs=1, callbacks=()):
    silence_warnings()
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=list(callbacks),
    )


def test_validation_is_the_mean_over_images_at_beta_one(run):
    """The last batch is smaller, so a mean over batches would differ. beta = 0 changes nothing."""
    run.objective.beta = 0.0
    module = module_of(run)
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
    module, data = module_of(run), ImageDataModule(SOURCE, run.loader, seed=0)
    (before,) = trainer().validate(module, data, verbose=False)
    fitted = trainer(8)
    fitted.fit(module, data)
    assert fitted.callback_metrics["val/elbo"] > before["val/elbo"] + 100
    assert fitted.global_step == 8 * 4
    tags = ("elbo", "log_likelihood", "kl", "loss", "beta", "grad_norm")
    assert {f"train/{tag}" for tag in tags} <= fitted.callback_metrics.keys()


def test_every_epoch_has_an_order_of_its_own(run):
    module, seen = module_of(run), []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch[0].clone())

    fitted = trainer(2)
    fitted.callbacks.append(Watch())
    fitted.fit(module, ImageDataModule(SOURCE, run.loader, seed=0))
    assert len(seen) == 8
    assert not any(
        torch.equal(first, second) for first, second in zip(seen[:4], seen[4:], strict=True)
    )


def test_beta_warms_up_by_fractions_of_an_epoch(run):
    run.objective.beta_warmup_epochs = 2.0
    module, betas = module_of(run), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            betas.append(float(trainer.callback_metrics["train/beta"]))

    fitted = trainer(3)
    fitted.callbacks.append(Watch())
    fitted.fit(module, ImageDataModule(SOURCE, run.loader, seed=0))
    assert betas == pytest.approx([i / 8 for i in range(8)] + [1.0] * 4)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_training_and_validation_report_the_bound_of_the_objective(run, objective):
    """In evaluation a batch of 32 is scored 20 images at a time, and counts 20 and 12."""
    run.objective = type(run.objective).base.choices[objective].Config(num_samples=5)
    run.loader.batch_size = 20
    module, data = module_of(run), ImageDataModule(SOURCE, run.loader, seed=0)
    fitted = trainer(2)
    fitted.fit(module, data)
    metrics = fitted.callback_metrics
    for split in ("train", "val"):
        assert metrics[f"{split}/iw_bound"] >= metrics[f"{split}/elbo"]
    torch.manual_seed(5)
    (found,) = trainer().validate(module, data, verbose=False)
    torch.manual_seed(5)
    with torch.no_grad():
        batches = [data.on_after_batch_transfer(batch, 0)[0] for batch in data.val_dataloader()]
        parts = [part for images in batches for part in images.split(20)]
        expected = torch.cat(
            [
                DregObjective.Config(num_samples=5).build()(module.vae, part, 1.0).bound
                for part in parts
            ]
        )
    assert found["val/iw_bound"] == pytest.approx(expected.mean().item(), rel=1e-5)


def test_a_training_that_diverges_is_said_and_not_saved(run):
    module, data = module_of(run), ImageDataModule(SOURCE, run.loader, seed=0)
    torch.nn.init.constant_(next(module.vae.decoder.parameters()), torch.nan)
    with pytest.raises(
        NonFiniteStep, match="train/log_likelihood is nan at iteration 0: the training has diverged"
    ):
        trainer(callbacks=[NonFiniteGuard(0)]).fit(module, data)
    with pytest.raises(
        ValueError,
        match="val/elbo is nan in epoch 0: training has diverged; lower optimizer.lr",
    ):
        trainer().validate(module, data, verbose=False)


def test_an_optimal_scale_is_learned_from_training_images_alone(run):
    run.likelihood = type(run.likelihood)(scale="optimal", dequantize=False)
    module, data = module_of(run), ImageDataModule(SOURCE, run.loader, seed=0)
    trainer().validate(module, data, verbose=False)
    assert module.vae.likelihood.scale.num_batches == 0
    trainer(2).fit(module, data)
    assert module.vae.likelihood.scale.num_batches == 2 * 4
    stored = module.vae.likelihood.scale.mean_power.clone()
    trainer().validate(module, data, verbose=False)
    assert torch.equal(stored, module.vae.likelihood.scale.mean_power)
