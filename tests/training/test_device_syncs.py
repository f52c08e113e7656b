"""Between two logged steps, a training step reads no tensor on the host: on a GPU it would wait.

It also dispatches a bounded number of operations, because their launch limits small networks.
"""

import traceback

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.profilers import Profiler
from torch.utils._python_dispatch import TorchDispatchMode

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.stages.stage_table import run_stage
from vaegan.training.non_finite_guard import NonFiniteGuard

HOST_READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
LOG_EVERY = 4  # batches
BATCHES = ["loader.batch_size=16", f"trainer.log_every_n_steps={LOG_EVERY}"]
BATCHES += ["trainer.max_epochs=1", "trainer.enable_progress_bar=true"]


class HostReads(TorchDispatchMode):
    """Record the places at which the value of a tensor is read, and count the operations."""

    def __init__(self):
        super().__init__()
        self.places = []
        self.num_operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num_operations += 1
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

    def refuse(profiler, name):
        pytest.fail(f"Lightning's profiler creates a generator for {name}")

    reads.num_steps = 0
    monkeypatch.setattr(Profiler, "profile", refuse)
    monkeypatch.setattr("vaegan.training.fit.is_bar_shown", lambda is_enabled: is_enabled)
    monkeypatch.setattr(_TrainingEpochLoop, "advance", recorded)
    monkeypatch.setattr(NonFiniteGuard, "check", lambda self: None)  # on a CPU after each step
    return reads


@pytest.mark.parametrize(
    "words, max_operations",
    [
        ([], 215),
        (["decoder.skip_excitation=true"], 260),
        (["prior=flow"], 2700),
        (["likelihood=gaussian", "likelihood.scale=optimal"], 255),
    ],
    ids=str,
)
def test_vae_steps_read_nothing_and_launch_few_operations(words, max_operations, reads, tmp_path):
    run_stage(compose(*SMALL_VAE, *BATCHES, "objective.beta_warmup_epochs=0", *words), tmp_path)
    assert reads.num_steps >= 6 and reads.places == []
    assert reads.num_operations / reads.num_steps <= max_operations


@pytest.mark.parametrize(
    "words, max_operations",
    [
        ([], 235),
        (["warm_start.aggregate_posterior=true"], 245),
        (["gradient_accumulation=2", "gradient_clip=1.0"], 485),
        (["warm_start.reconstruction_weight=1"], 340),
        (["warm_start.feature_weight=1"], 430),
        (["emphasis.saturation=3", "emphasis.sharpness=4"], 320),
        (["noise_inputs=true"], 285),
        (["augmentation=diff_augment", "augmentation.adaptive_target=0.6"], 420),
    ],
    ids=str,
)
def test_gan_steps_read_nothing_and_launch_few_operations(
    words, max_operations, reads, tmp_path, vae_result
):
    words = [*SMALL_GAN, *BATCHES, "discriminator_warmup=16", *words]
    run_stage(compose(*words, f"vae_ckpt={vae_result[0]}"), tmp_path)
    assert reads.num_steps >= 6 and reads.places == []
    assert reads.num_operations / reads.num_steps <= max_operations
