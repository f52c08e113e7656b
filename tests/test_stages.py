"""Whole runs on synthetic images, looked at as a user would."""

import csv

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.checkpoints import load_checkpoint
from vaegan.images import to_float
from vaegan.objectives import elbo
from vaegan.random import derive_seed
from vaegan.stages.fitting import check_devices, flatten, new_folder
from vaegan.training import TrainerConfig

pytestmark = pytest.mark.slow
PICTURES = ("samples", "reconstructions", "interpolation")
TRAIN_TAGS = {
    "vae": {"elbo", "log_likelihood", "kl", "loss", "beta", "grad_norm", "lr"},
    "gan": {"d_loss", "d_real", "d_fake", "d_grad_norm", "d_lr", "g_loss", "g_grad_norm", "g_lr"},
}
VAL_TAGS = {"vae": {"elbo", "log_likelihood", "kl"}, "gan": {"frechet_distance"}}


@pytest.fixture(params=["vae", "gan"])
def finished(request, vae_result, gan_result):
    return {"vae": vae_result, "gan": gan_result}[request.param]


def test_a_run_folder_holds_all_that_a_run_has_to_show(finished):
    _, result = finished
    names = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*")}
    assert {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"} <= names
    assert {f"pictures/{kind}/{step:06d}.png" for kind in PICTURES for step in (0, 4, 8)} <= names
    assert result.checkpoint == result.folder / "checkpoints" / "best.ckpt"


def test_tensorboard_has_every_tag_and_counts_batches(finished):
    _, result = finished
    stage = result.folder.name
    events = EventAccumulator(str(result.folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    scalars = {f"train/{tag}" for tag in TRAIN_TAGS[stage]} | {f"val/{tag}" for tag in VAL_TAGS[stage]}
    assert scalars | {f"test/{tag}" for tag in VAL_TAGS[stage]} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == set(PICTURES)
    assert "config/text_summary" in events.Tags()["tensors"]
    first = "train/elbo" if stage == "vae" else "train/d_loss"
    assert [event.step for event in events.Scalars(first)] == list(range(8))
    assert [event.step for event in events.Images("samples")] == ([0, 4, 8] if stage == "vae" else [0, 2, 4, 6, 8])
    assert events.Scalars("val/" + ("elbo" if stage == "vae" else "frechet_distance"))[0].step == 0


def test_metrics_are_also_in_a_table(finished):
    _, result = finished
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    for tag, value in result.metrics.items():
        assert any(row[tag] and float(row[tag]) == pytest.approx(value) for row in rows), tag


def test_the_best_checkpoint_is_the_one_with_the_best_metric(finished):
    _, result = finished
    tag, better = ("val/elbo", max) if result.folder.name == "vae" else ("val/frechet_distance", min)
    rows = list(csv.DictReader((result.folder / "metrics.csv").read_text().splitlines()))
    trained = [(float(row[tag]), int(row["step"]) + 1) for row in rows if row[tag] and int(row["step"]) > 0]
    best, step = better(trained)
    assert result.metrics[tag] == pytest.approx(best)
    assert torch.load(result.checkpoint, weights_only=True)["global_step"] == step
    assert torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8


def test_the_gan_begins_with_the_pictures_of_its_vae(vae_result, gan_result):
    step = torch.load(vae_result[1].checkpoint, weights_only=True)["global_step"]
    vae_pictures, gan_pictures = vae_result[1].folder / "pictures", gan_result[1].folder / "pictures"
    for kind in PICTURES:
        expected = (vae_pictures / kind / f"{step:06d}.png").read_bytes()
        assert (gan_pictures / kind / "000000.png").read_bytes() == expected
        assert (gan_pictures / kind / "000008.png").read_bytes() != expected


def test_the_same_command_gives_the_same_run(finished, vae_result, tmp_path):
    torch.manual_seed(99)
    stage = finished[1].folder.name
    command = SMALL_VAE if stage == "vae" else [*SMALL_GAN, f"vae_ckpt={vae_result[0]}"]
    again = compose(*command).execute(tmp_path)
    assert again.metrics == finished[1].metrics
    first, second = (load_checkpoint(result.checkpoint).state for result in (finished[1], again))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_best_checkpoint_is_scored_on_the_test_split(tmp_path):
    """A learning rate that is far too high: the best checkpoint is not the last."""
    settings = ["optimizer.lr=0.2", "optimizer.lr_warmup=0.5", "optimizer.lr_final=1", "trainer.max_epochs=6"]
    result = compose(*SMALL_VAE, *settings, "likelihood=gaussian", "likelihood.scale=0.5").execute(tmp_path)
    steps = [
        torch.load(result.folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    ]
    assert steps[0] < steps[1]
    vae, source = load_checkpoint(result.checkpoint).build_vae(), compose(*SMALL_VAE).dataset.build()
    torch.manual_seed(derive_seed(0, "test", 0, 0))
    with torch.no_grad():
        expected = elbo(vae, to_float(source.split("test").images)).value.mean()
    assert result.metrics["test/elbo"] == pytest.approx(expected.item(), rel=1e-5)


def test_another_seed_gives_another_run(vae_result, tmp_path):
    assert compose(*SMALL_VAE, "seed=1").execute(tmp_path).metrics != vae_result[1].metrics


def test_a_cold_start_trains_the_same_generator_from_fresh_weights(vae_result, gan_result, tmp_path):
    cold = compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "warm_start=false").execute(tmp_path)
    warm_start, cold_start = (
        (result.folder / "pictures" / "samples" / "000000.png").read_bytes() for result in (gan_result[1], cold)
    )
    assert warm_start != cold_start
    states = [load_checkpoint(result.checkpoint).state for result in (gan_result[1], cold)]
    assert [(key, value.shape) for key, value in states[0].items()] == [
        (key, value.shape) for key, value in states[1].items()
    ]


def test_the_gan_takes_the_vaes_data_unless_told_otherwise(vae_result, gan_result):
    assert load_checkpoint(gan_result[1].checkpoint).run["dataset"] is None
    assert load_checkpoint(gan_result[1].checkpoint).vae["dataset"]["name"] == "shapes"


def test_images_of_another_shape_are_refused(vae_result, tmp_path):
    run = compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "dataset=shapes", "dataset.channels=3")
    message = r"makes images of shape \(1, 28, 28\).*but dataset=shapes has \(3, 28, 28\); leave dataset out"
    with pytest.raises(ValueError, match=message):
        run.execute(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_never_overwritten(vae_result):
    with pytest.raises(ValueError, match="holds a run already, which is never overwritten; set hydra.run.dir"):
        compose(*SMALL_VAE).execute(vae_result[0])


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot make the run folder .*; set hydra.run.dir"):
        new_folder(tmp_path / "file" / "vae")


def test_devices_that_are_not_there_are_said():
    with pytest.raises(ValueError, match="trainer: .*'accelerator': 'tpu'.* cannot be had on this machine"):
        check_devices(TrainerConfig(accelerator="tpu"))


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path):
    run = compose(*SMALL_VAE, "trainer.max_epochs=6", "early_stopping_patience=1", "optimizer.lr=1e-30")
    run.objective.beta_warmup_epochs = 0.0
    result = run.execute(tmp_path)
    last = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] < 6 * 4


def test_early_stopping_lets_a_run_that_gets_better_go_on(tmp_path):
    result = compose(*SMALL_VAE, "trainer.max_epochs=3", "early_stopping_patience=1").execute(tmp_path)
    assert torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3 * 4


def test_nested_settings_become_flat_ones():
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}
