"""Random noise per step, and image grids that do not disturb it."""

from types import SimpleNamespace

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.data.batches import SequentialBatches
from vaegan.training.image_grids import ImageGridLogger
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.vae.model import VAE


def make_trainer(**state):
    defaults = {
        "current_epoch": 0,
        "num_training_batches": 10,
        "global_rank": 0,
        "world_size": 1,
    }
    return SimpleNamespace(**defaults | state)


def training_noise(batch_idx=0, **state):
    """Return noise drawn in a training step."""
    module = SimpleNamespace(device=torch.device("cpu"))
    trainer = make_trainer(**state)
    PerStepSeeding(seed=0).on_train_batch_start(trainer, module, None, batch_idx)
    return torch.rand(4).tolist()


def evaluation_noise(split="validation", num_images=7, batch_size=7, draw=torch.randn, **state):
    """Return the noise of all images in an evaluation on one rank, (num_images, 5)."""
    callback = PerStepSeeding(seed=0)
    module = SimpleNamespace(device=torch.device("cpu"))
    trainer = make_trainer(**state)
    getattr(callback, f"on_{split}_epoch_start")(trainer, module)
    noise = []
    batches = SequentialBatches(num_images, batch_size, trainer.global_rank, trainer.world_size)
    for i, batch in enumerate(batches):
        images = torch.zeros(len(batch.indices), 1, 2, 2)
        getattr(callback, f"on_{split}_batch_start")(trainer, module, (images, None), i)
        noise.append(draw(len(images), 5))
        getattr(callback, f"on_{split}_batch_end")(trainer, module)
    return torch.cat(noise)


def test_noise_depends_only_on_iteration_and_rank():
    first = training_noise(batch_idx=3)
    torch.rand(100)
    assert training_noise(batch_idx=3) == first
    assert training_noise(batch_idx=4) != first
    assert training_noise(batch_idx=3, global_rank=1) != first
    assert training_noise(batch_idx=0, current_epoch=1) == training_noise(batch_idx=10)


def test_all_validations_draw_the_same_noise():
    first = evaluation_noise(current_epoch=0)
    torch.rand(100)
    assert torch.equal(first, evaluation_noise(current_epoch=5))
    assert not torch.isin(first, evaluation_noise("test")).any()
    assert len(first.unique()) == first.numel()


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 3, 7])
@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
def test_evaluation_noise_depends_neither_on_devices_nor_on_the_batch_size(
    world_size, batch_size, draw
):
    expected = evaluation_noise(draw=draw)
    for rank in range(world_size):
        share = evaluation_noise(
            batch_size=batch_size, draw=draw, global_rank=rank, world_size=world_size
        )
        assert torch.equal(share, expected[rank::world_size])


def test_evaluation_leaves_no_noise_mode_behind():
    evaluation_noise()
    torch.manual_seed(0)
    first = torch.rand(7)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(7), first)


def test_only_rank_zero_writes_image_grids(tmp_path):
    vae = VAE((1, 8, 8), compose("stage=vae", *SMALL_NETS))
    module = SimpleNamespace(
        vae=vae,
        generate=lambda z: vae.decode(z).mean,
        device="cpu",
        latent_distribution=vae.latent_prior,
    )
    callback = ImageGridLogger(tmp_path, torch.rand(4, 1, 8, 8), seed=0)
    fit_loop = SimpleNamespace(total_batch_idx=41)
    callback.on_validation_end(
        SimpleNamespace(is_global_zero=False, fit_loop=fit_loop, loggers=[]), module
    )
    assert not list(tmp_path.rglob("*.png"))
    state = torch.get_rng_state()
    callback.on_validation_end(
        SimpleNamespace(is_global_zero=True, fit_loop=fit_loop, loggers=[]), module
    )
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")) == [
        "interpolation/000042.png",
        "reconstructions/000042.png",
        "samples/000042.png",
    ]
    assert torch.equal(torch.get_rng_state(), state)
