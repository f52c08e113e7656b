"""Random noise per step, and image grids that do not disturb it."""

from types import SimpleNamespace

import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.training.image_grids import ImageGridLogger
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.vae.model import VAE


def noise(hook, **state):
    """Return noise drawn after a hook of PerStepSeeding."""
    trainer = SimpleNamespace(
        **{
            "current_epoch": 0,
            "num_training_batches": 10,
            "global_rank": 0,
            "world_size": 1,
            **state,
        }
    )
    getattr(PerStepSeeding(seed=0), hook)(
        trainer,
        SimpleNamespace(device=torch.device("cpu")),
        None,
        batch_idx=state.get("batch_idx", 0),
    )
    return torch.rand(4).tolist()


def test_noise_depends_only_on_iteration_and_rank():
    first = noise("on_train_batch_start", batch_idx=3)
    torch.rand(100)
    assert noise("on_train_batch_start", batch_idx=3) == first
    assert noise("on_train_batch_start", batch_idx=4) != first
    assert noise("on_train_batch_start", batch_idx=3, global_rank=1) != first
    assert noise("on_train_batch_start", batch_idx=0, current_epoch=1) == noise(
        "on_train_batch_start", batch_idx=10
    )


def test_all_validations_draw_the_same_noise():
    assert noise("on_validation_batch_start", current_epoch=0) == noise(
        "on_validation_batch_start", current_epoch=5
    )
    assert noise("on_validation_batch_start") != noise("on_test_batch_start")


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
