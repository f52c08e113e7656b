"""Gradient scaling with torch's real scaler, on the CPU."""

from types import SimpleNamespace

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins import MixedPrecision

from tests.gan import test_module as gan
from tests.training.test_device_syncs import HostReads
from vaegan.training.devices import silence_warnings
from vaegan.training.grad_scaler import GradScaler, accept_missing_gradients
from vaegan.training.gradients import clip_gradients
from vaegan.training.non_finite_guard import NonFiniteGuard


class Line(pl.LightningModule):
    """One weight with the loss (weight * input)."""

    def __init__(self, is_frozen):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.is_frozen = is_frozen
        self.history = []

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1, fused=True)

    def training_step(self, batch, batch_idx):
        loss = (self.weight * batch).sum()
        self.terms = {"train/loss": loss}
        return loss

    def on_before_optimizer_step(self, optimizer):
        self.history.append(self.weight.item())
        if self.is_frozen:
            self.weight.grad = None


def fit(module, batches, callbacks=()):
    silence_warnings()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))],
        callbacks=list(callbacks),
    )
    accept_missing_gradients(trainer)
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    return trainer


def test_bad_step_is_skipped_in_16_bit_precision():
    module, guard = Line(is_frozen=False), NonFiniteGuard(1)
    trainer = fit(module, torch.tensor([1.0, torch.nan, 1.0]), [guard])
    first, second, third = module.history
    assert guard.num_skipped == 1
    assert first != second == third != module.weight.item()
    assert trainer.global_step == 3


def test_all_layers_can_be_frozen_in_16_bit_precision():
    module = Line(is_frozen=True)
    trainer = fit(module, torch.ones(3))
    assert module.history == [1.0] * 3
    assert trainer.precision_plugin.scaler.get_scale() == torch.amp.GradScaler("cpu").get_scale()


def test_overflow_still_lowers_the_scale():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.Adam([weight], fused=True), GradScaler("cpu", init_scale=8.0)
    scaler.scale(weight.sum() * torch.inf).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.item() == 1 and scaler.get_scale() == 4


def test_clipping_leaves_the_loss_scale_on_the_device():
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.tensor([24.0])
    precision = SimpleNamespace(scaler=GradScaler("cpu", init_scale=8.0))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(precision_plugin=precision, strategy=strategy)
    with HostReads() as reads:
        clip_gradients([weight], 2.0, trainer)
    assert reads.places == []
    torch.testing.assert_close(weight.grad, torch.tensor([16.0]))


def test_gan_with_frozen_layers_trains_in_16_bit_precision():
    words = ["gradient_accumulation=2", "gradient_clip=1", "discriminator_warmup=0"]
    words += ["warm_start.freeze_layers=1", "warm_start.freeze_images=1000"]
    module = gan.make_module(*words)
    networks = (module.discriminator, module.generator.decoder)
    before = [gan.weights(network) for network in networks]
    scaler = GradScaler("cpu", init_scale=8.0)
    gan.fit(module, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    for network, old in zip(networks, before, strict=True):
        new = gan.weights(network)
        assert new.isfinite().all() and not new.equal(old)
