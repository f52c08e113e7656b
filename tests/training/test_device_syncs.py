"""A training step reads no tensor on the host between two logged steps: on a GPU it would wait."""

import traceback

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.stages.stage_table import run_stage
from vaegan.training.non_finite_guard import NonFiniteGuard

HOST_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
LOG_EVERY = 4  # batches
BATCHES = ["loader.batch_size=16", f"trainer.log_every_n_steps={LOG_EVERY}"]
BATCHES += ["trainer.max_epochs=1", "trainer.enable_progress_bar=true"]


class HostReads(TorchDispatchMode):
    """Record the places at which the value of a tensor is read."""

    def __init__(self):
        super().__init__()
        self.places = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in HOST_READS:
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()]
            if not any("torch/optim" in frame for frame in frames):  # Adam's counter is on the CPU
                self.places.append(next(f for f in frames[::-1] if "_python_dispatch" not in f))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def reads(monkeypatch):
    """Record host reads in the batches from the fifth on that are not logged."""
    reads = HostReads()
    advance = _TrainingEpochLoop.advance

    def recorded(loop, *args):
        step = loop.trainer.fit_loop.total_batch_idx + 1
        if step < LOG_EVERY or (step + 1) % LOG_EVERY == 0:
            return advance(loop, *args)
        reads.num_steps += 1
        with reads:
            return advance(loop, *args)

    reads.num_steps = 0
    monkeypatch.setattr(_TrainingEpochLoop, "advance", recorded)
    monkeypatch.setattr(NonFiniteGuard, "check", lambda self: None)  # on a CPU after each step
    return reads


@pytest.mark.parametrize(
    "words", [[], ["prior=flow"], ["likelihood=gaussian", "likelihood.scale=optimal"]], ids=str
)
def test_vae_steps_read_nothing(words, reads, tmp_path):
    run_stage(compose(*SMALL_VAE, *BATCHES, "objective.beta_warmup_epochs=0", *words), tmp_path)
    assert reads.num_steps >= 6 and reads.places == []


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["gradient_accumulation=2", "gradient_clip=1.0"],
        ["warm_start.reconstruction_weight=1"],
        ["augmentation=diff_augment", "augmentation.adaptive_target=0.6"],
    ],
    ids=str,
)
def test_gan_steps_read_nothing(words, reads, tmp_path, vae_result):
    words = [*SMALL_GAN, *BATCHES, "discriminator_warmup=16", *words]
    run_stage(compose(*words, f"vae_ckpt={vae_result[0]}"), tmp_path)
    assert reads.num_steps >= 6 and reads.places == []
