"""Non-finite steps and resume checkpoints, tested with small runs in this process."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted
from vaegan.stages.stage_table import run_stage
from vaegan.training.fit import explain_failures
from vaegan.training.non_finite_guard import NonFiniteGuard, NonFiniteStep
from vaegan.training.resume_checkpoints import AtomicCheckpointIO, BestCheckpoint, ResumeCheckpoints
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.training.trainer_config import CheckpointConfig

GAUSSIAN = [*SMALL_VAE, "likelihood=gaussian"]


@pytest.fixture
def bad_batches(monkeypatch):
    """Return a list; training batches whose number is added to it get NaN images."""
    bad_numbers, original, seen = [], ImageDataModule.on_after_batch_transfer, []

    def transfer(self, batch, index):
        images, labels = original(self, batch, index)
        if self.trainer.training:
            if len(seen) in bad_numbers:
                images = images * torch.nan
            seen.append(index)
        return images, labels

    monkeypatch.setattr(ImageDataModule, "on_after_batch_transfer", transfer)
    return bad_numbers


def all_finite(path):
    """Return True if all weights and optimizer states in a checkpoint are finite."""
    content = torch.load(path, weights_only=True)
    tensors = [*content["state_dict"].values()]
    tensors += [
        value
        for state in content["optimizer_states"][0]["state"].values()
        for value in state.values()
    ]
    return all(value.isfinite().all() for value in tensors)


@pytest.mark.slow
def test_non_finite_step_stops_training_before_a_checkpoint_is_affected(bad_batches, tmp_path):
    bad_batches.append(5)
    with pytest.raises(
        NonFiniteStep,
        match="train/log_likelihood is nan at iteration 5: .*Checkpoints are not affected",
    ):
        run_stage(compose(*GAUSSIAN, "checkpoint.every_n_images=64"), tmp_path)
    checkpoints = sorted((tmp_path / "vae" / "checkpoints").glob("*.ckpt"))
    assert [path.name for path in checkpoints] == ["00000004.ckpt", "00000005.ckpt", "best.ckpt"]
    assert all(map(all_finite, checkpoints))


@pytest.mark.slow
def test_non_finite_gan_step_names_the_loss(bad_batches, vae_result, tmp_path):
    bad_batches.append(3)
    with pytest.raises(NonFiniteStep, match="train/d_loss is nan at iteration 3"):
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}"), tmp_path)


@pytest.mark.slow
def test_number_of_skipped_steps_is_kept_when_a_run_is_resumed(bad_batches, tmp_path, caplog):
    bad_batches += [2, 5]
    with pytest.raises(NonFiniteStep, match="iteration 5"):
        run_stage(
            compose(*GAUSSIAN, "trainer.skip_bad_steps=1", "checkpoint.every_n_images=64"), tmp_path
        )
    bad_batches[:] = [8]  # batches are counted over both attempts: this is iteration 7
    with pytest.raises(NonFiniteStep, match="iteration 7"):
        run_stage(compose(*GAUSSIAN, "trainer.skip_bad_steps=1", "resume=true"), tmp_path)
    bad_batches[:] = [9]
    result = run_stage(compose(*GAUSSIAN, "trainer.skip_bad_steps=2", "resume=true"), tmp_path)
    assert "step skipped (2 of at most 2): train/log_likelihood is nan" in caplog.text
    last = result.folder / "checkpoints" / "last.ckpt"
    assert all_finite(last) and torch.load(last, weights_only=True)["callbacks"][
        "NonFiniteGuard"
    ] == {"num_skipped": 2}


def step(guard, values, gradient=1.0, device="cpu", iteration=7):
    """Pass a step to the guard, which logs every tenth one; return its parameter."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), gradient)
    module = SimpleNamespace(
        device=torch.device(device), terms={name: torch.tensor(v) for name, v in values.items()}
    )
    fit_loop = SimpleNamespace(total_batch_idx=iteration)
    trainer = SimpleNamespace(precision_plugin=None, fit_loop=fit_loop, log_every_n_steps=10)
    guard.on_before_optimizer_step(trainer, module, torch.optim.Adam([parameter]))
    return parameter


def test_gradients_are_checked():
    with pytest.raises(NonFiniteStep, match="the gradient of train/d_loss is inf at iteration 7"):
        step(NonFiniteGuard(0), {"train/d_loss": 1.0}, torch.inf)
    assert step(NonFiniteGuard(0), {"train/d_loss": 1.0}).grad is not None


def test_steps_on_an_accelerator_are_checked_together_when_one_is_logged():
    guard = NonFiniteGuard(0)
    for iteration in range(9):
        step(guard, {"train/loss": torch.nan}, device="meta", iteration=iteration)
    with pytest.raises(NonFiniteStep, match="train/loss is nan at iteration 0"):
        step(guard, {"train/loss": 1.0}, device="meta", iteration=9)


def test_skipped_step_has_no_gradient():
    guard = NonFiniteGuard(1)
    guard.on_fit_start(None, None)
    assert step(guard, {"train/loss": torch.nan}).grad is None and guard.num_skipped == 1
    assert step(guard, {"train/loss": 1.0}).grad is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    "message", ["CUDA out of memory. Tried to allocate 2 GiB", "can't allocate memory: you tried"]
)
def test_out_of_memory_error_suggests_settings(vae_result, tmp_path, monkeypatch, message):
    def training_step(self, batch, index):
        raise torch.OutOfMemoryError(message)

    monkeypatch.setattr("vaegan.gan.module.GANModule.training_step", training_step)
    expected = r"out of memory: .*\nTry loader.batch_size=32 \(now 64\), gradient_accumulation=2"
    with pytest.raises(ValueError, match=expected):
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}"), tmp_path)


@pytest.mark.slow
def test_newest_checkpoints_are_kept_until_the_stage_has_finished(tmp_path, monkeypatch):
    kept = []
    save = ResumeCheckpoints.save

    def save_and_list(self, trainer, num_done):
        save(self, trainer, num_done)
        kept.append(
            sorted(path.stem for path in (tmp_path / "vae" / "checkpoints").glob("[!b]*.ckpt"))
        )

    monkeypatch.setattr(ResumeCheckpoints, "save", save_and_list)
    overrides = [
        "checkpoint.every_n_images=128",
        "checkpoint.keep=2",
        "checkpoint.every_n_minutes=null",
    ]
    run_stage(compose(*SMALL_VAE, *overrides), tmp_path)
    assert kept == [
        ["00000002"],
        ["00000002", "00000004"],
        ["00000004", "00000006"],
        ["00000004", "00000006", "last"],
    ]
    assert sorted(path.stem for path in (tmp_path / "vae" / "checkpoints").iterdir()) == [
        "best",
        "last",
    ]


def test_checkpoints_are_due_by_time_and_by_images(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def build(minutes, images):
        callback = ResumeCheckpoints(
            None, CheckpointConfig(every_n_minutes=minutes, every_n_images=images), 64, None
        )
        callback.saved_at = 0.0
        return callback

    by_time, by_images, by_none = build(2.0, None), build(None, 200), build(None, None)
    for seconds, expected in ((0, False), (119, False), (120, True)):
        now[0] = seconds
        assert by_time.is_due(5) is expected and not by_none.is_due(5)
    assert [by_images.is_due(num_done) for num_done in range(7)] == [
        False,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    by_time.num_saved = 5
    assert not by_time.is_due(5)


def test_unwritable_checkpoint_raises_a_clear_error(tmp_path):
    with pytest.raises(
        OSError,
        match=r"cannot write the checkpoint .*last.ckpt \(.*\)$",
    ):
        AtomicCheckpointIO().save_checkpoint({}, "/dev/null/last.ckpt")


def test_signal_stops_validation_only_outside_of_training(monkeypatch):
    fitting, validating = (
        SimpleNamespace(state=SimpleNamespace(fn=fn)) for fn in ("fit", "validate")
    )
    callback = StopOnSignal()
    callback.on_validation_batch_start(validating)
    monkeypatch.setattr(SIGNAL_STATE, "signum", 15)
    callback.on_validation_batch_start(fitting)
    for hook in (callback.on_validation_batch_start, callback.on_test_batch_start):
        with pytest.raises(Interrupted, match="no work is lost"):
            hook(validating)


def test_long_validation_during_training_is_stopped_after_a_signal(monkeypatch):
    fitting = SimpleNamespace(state=SimpleNamespace(fn="fit"))
    monkeypatch.setattr(SIGNAL_STATE, "signum", 15)
    monkeypatch.setattr(SIGNAL_STATE, "received_at", time.monotonic() - 9)
    StopOnSignal().on_validation_batch_start(fitting)
    monkeypatch.setattr(SIGNAL_STATE, "received_at", time.monotonic() - 11)
    with pytest.raises(Interrupted, match="stopped during a validation"):
        StopOnSignal().on_validation_batch_start(fitting)


@pytest.mark.slow
def test_reported_best_score_is_read_from_the_checkpoint(vae_result, caplog):
    folder, result = vae_result
    best = BestCheckpoint(folder / "vae" / "checkpoints", "val/elbo", "max")
    best.best_model_score = torch.tensor(result.metrics["val/elbo"])
    assert best.saved_score() == pytest.approx(result.metrics["val/elbo"]) and not caplog.records
    # As after resuming on another machine that rounds differently.
    best.best_model_score = torch.tensor(-1.0)
    assert best.saved_score() == pytest.approx(result.metrics["val/elbo"])
    assert "the best checkpoint was saved before the run was interrupted: val/elbo=" in caplog.text


@pytest.mark.slow
def test_a_run_whose_best_checkpoint_had_another_metric_is_not_resumed(vae_result):
    folder = vae_result[0] / "vae" / "checkpoints"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    trainer, module = SimpleNamespace(), SimpleNamespace()
    BestCheckpoint(folder, "val/elbo", "max").on_load_checkpoint(trainer, module, checkpoint)
    best = BestCheckpoint(folder, "val/iw_bound", "max")
    with pytest.raises(ValueError, match="val/iw_bound now selects the best checkpoint"):
        best.on_load_checkpoint(trainer, module, checkpoint)


def test_weights_of_other_networks_are_explained():
    module = SimpleNamespace(automatic_optimization=True)
    with (
        pytest.raises(ValueError, match="run/last.ckpt do not fit the networks .*start a new run"),
        explain_failures(module, LoaderConfig(batch_size=8), Path("run/last.ckpt")),
    ):
        torch.nn.Linear(2, 2).load_state_dict({})
