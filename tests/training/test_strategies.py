import collections
import json

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from tests.faults import TWO_PROCESSES, run_in_process
from vaegan.stages.execute import execute

COLLECTIVES = ("all_reduce", "broadcast", "barrier", "all_gather", "broadcast_object_list")
SHORT = ["trainer.max_epochs=1", "trainer.log_every_n_steps=4", "loader.batch_size=32"]


@pytest.fixture
def collectives(monkeypatch, tmp_path):
    """Return the path of a file with the collectives of each training step on the first rank.

    Each is its name, followed by the number of elements of its tensor. The reduction of the signal
    flags is left out.
    """
    path = tmp_path / "collectives.json"
    steps = []

    def spy(name):
        original = getattr(dist, name)

        def recorded(*args, **kwargs):
            tensor = args[0] if args and torch.is_tensor(args[0]) else torch.empty(0)
            if steps and tensor.dtype != torch.int64:  # not the flags
                steps[-1].append(f"{name} {tensor.numel()}")
            return original(*args, **kwargs)

        monkeypatch.setattr(dist, name, recorded)

    def advance(loop, *args):
        steps.append([])
        original_advance(loop, *args)
        if dist.get_rank() == 0:
            path.write_text(json.dumps(steps))

    original_advance = _TrainingEpochLoop.advance
    monkeypatch.setattr(_TrainingEpochLoop, "advance", advance)
    for name in COLLECTIVES:
        spy(name)
    sync = DistributedDataParallel._sync_buffers
    monkeypatch.setattr(
        DistributedDataParallel, "_sync_buffers", lambda ddp: (steps[-1].append("sync"), sync(ddp))
    )
    return path


def unlogged_steps(path):
    """Return the recorded steps that are not logged."""
    return [step for i, step in enumerate(json.loads(path.read_text())) if (i + 1) % 4]


def test_gan_step_averages_the_gradients_of_each_network_once(collectives, tmp_path, vae_result):
    words = [*SMALL_GAN, *SHORT, *TWO_PROCESSES, "noise_inputs=true"]
    run = compose(*words, f"vae_ckpt={vae_result[0]}")
    run_in_process(tmp_path / "log", lambda: execute(run, tmp_path / "run"))
    path = tmp_path / "run" / "gan" / "checkpoints" / "last.ckpt"
    weights = torch.load(path, weights_only=True)["state_dict"]
    sizes = collections.Counter()
    for name, tensor in weights.items():
        sizes[name.split(".")[0]] += tensor.numel()
    discriminator = f"all_reduce {sizes['discriminator']}"
    both = [discriminator, f"all_reduce {sizes['generator']}"]
    assert unlogged_steps(collectives) == 3 * [[discriminator]] + 3 * [both]


def test_vae_step_adds_no_collectives_to_those_of_ddp(collectives, tmp_path):
    run = compose(*SMALL_VAE, *SHORT, *TWO_PROCESSES, "objective.beta_warmup_epochs=0")
    run_in_process(tmp_path / "log", lambda: execute(run, tmp_path / "run"))
    assert unlogged_steps(collectives) == 6 * [[]]


def test_ddp_on_one_device_trains_a_gan(tmp_path, vae_result):
    run = compose(*SMALL_GAN, *SHORT, "trainer.strategy=ddp", f"vae_ckpt={vae_result[0]}")
    execute(run, tmp_path)
    assert (tmp_path / "gan" / "checkpoints" / "last.ckpt").exists()
