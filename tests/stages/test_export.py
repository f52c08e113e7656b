"""A trained model to safetensors and JSON and back: the same figures, the same GAN, bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.stages.stage_table import run_stage

pytestmark = pytest.mark.slow
EVALUATION = ["stage=evaluate", "num_samples=20", "trainer.enable_progress_bar=false"]


def export(result, folder):
    """Folder of the export of a result's best checkpoint."""
    run_stage(compose("stage=export", f"ckpt={result.checkpoint}"), folder)
    return folder / "export"


@pytest.fixture(scope="module")
def exported(vae_result, gan_result, tmp_path_factory):
    """Folders of the exports of both stages."""
    folder = tmp_path_factory.mktemp("exported")
    results = {"vae": vae_result[1], "gan": gan_result[1]}
    return {stage: export(result, folder / stage) for stage, result in results.items()}


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_an_export_evaluates_to_the_same_figures(exported, vae_result, gan_result, stage, tmp_path):
    result = {"vae": vae_result, "gan": gan_result}[stage][1]
    places = {
        "ckpt": result.checkpoint,
        "folder": exported[stage],
        "file": exported[stage] / "model.safetensors",
    }
    found = {
        name: run_stage(compose(*EVALUATION, f"ckpt={at}"), tmp_path / name).metrics
        for name, at in places.items()
    }
    assert found["folder"] == found["file"] == found["ckpt"]


def test_a_gan_starts_from_an_export_as_from_the_checkpoint(exported, gan_result, tmp_path):
    result = run_stage(compose(*SMALL_GAN, f"vae_ckpt={exported['vae']}"), tmp_path)
    ours, theirs = (load_checkpoint(each.checkpoint).state for each in (result, gan_result[1]))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert result.metrics == gan_result[1].metrics
    cost = [
        json.loads((each.folder / "run.json").read_text())["stage1_compute"]
        for each in (result, gan_result[1])
    ]
    assert cost[0] == cost[1] > 0


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_an_export_holds_the_model_and_nothing_of_its_training(
    exported, vae_result, gan_result, stage
):
    checkpoint = load_checkpoint({"vae": vae_result, "gan": gan_result}[stage][1].checkpoint)
    back = load_checkpoint(exported[stage] / "model.safetensors")
    assert {path.name for path in exported[stage].iterdir()} == {"model.safetensors", "model.json"}
    prefixes = {"vae": ("vae.",), "gan": ("vae.", "ema.module.")}[stage]
    assert set(back.state) == {key for key in checkpoint.state if key.startswith(prefixes)}
    assert all(torch.equal(value, checkpoint.state[key]) for key, value in back.state.items())
    assert (back.stage, back.image_shape, back.run, back.vae, back.epoch) == (
        checkpoint.stage,
        checkpoint.image_shape,
        checkpoint.run,
        checkpoint.vae,
        checkpoint.epoch,
    )
    assert back.vae_flops == back.training_flops() == checkpoint.training_flops()
    assert load_file(exported[stage] / "model.safetensors").keys() == back.state.keys()


def test_every_learned_part_comes_back(tmp_path):
    """A prior that encodes, a flow, a scale with a running mean; aggregate-posterior latents."""
    parts = [
        "prior=vamp_prior",
        "prior.num_pseudo_inputs=8",
        "posterior=flow",
        "likelihood=gaussian",
    ]
    short = ["likelihood.scale=optimal", "trainer.max_epochs=1", "trainer.limit_train_batches=0.5"]
    vae = run_stage(compose("stage=vae", *SMALL_VAE[1:], *parts, *short), tmp_path)
    words = [
        *SMALL_GAN,
        "warm_start.aggregate_posterior=true",
        "trainer.max_epochs=1",
        f"vae_ckpt={vae.folder}",
    ]
    gan = run_stage(compose(*words), tmp_path / "gan")
    for result in (vae, gan):
        before = load_checkpoint(result.checkpoint)
        after = load_checkpoint(
            export(result, tmp_path / f"of_{before.stage}") / "model.safetensors"
        )
        built = [each.build_latents() for each in (before, after)]
        draws = []
        for latents in built:
            torch.manual_seed(0)
            draws.append(latents().sample((5,)))
        assert torch.equal(*draws)
        z = draws[0]
        images = [each.build_vae().decode(z).mean for each in (before, after)]
        if before.stage == "gan":
            assert built[1].aggregate is not None
            images = [each.build_generator()(z) for each in (before, after)]
        assert torch.equal(*images)


def test_run_folders_are_exported_and_exports_found_in_them(exported, vae_result, tmp_path, capsys):
    run_stage(compose("stage=export", f"ckpt={vae_result[0]}"), tmp_path)
    path = tmp_path / "export" / "model.safetensors"
    assert path.read_bytes() == (exported["vae"] / "model.safetensors").read_bytes()
    for given in (tmp_path, path.parent, path):
        assert find_checkpoint(str(given), "ckpt", ["vae"]) == path
    out = capsys.readouterr().out
    assert (
        f"stage=evaluate ckpt={path.parent}" in out and f"stage=gan vae_ckpt={path.parent}" in out
    )


def test_a_folder_with_a_run_is_not_overwritten(exported, vae_result):
    with pytest.raises(ValueError, match="export already contains a run"):
        run_stage(compose("stage=export", f"ckpt={vae_result[0]}"), exported["vae"].parent)


def test_a_gans_export_is_refused_as_a_start(exported, tmp_path):
    with pytest.raises(ValueError, match="is a stage=gan checkpoint; give the stage=vae one"):
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={exported['gan']}"), tmp_path)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "ckpt must be the folder or the checkpoint of a stage=vae or stage=gan run"),
        (
            ["ckpt=x", "sweep_metric=val/elbo"],
            "sweep_metric must be empty in stage=export, which trains nothing",
        ),
        (["ckpt=https://example.org/x.ckpt"], "ckpt=https://example.org/x.ckpt: URLs are refused"),
    ],
)
def test_a_command_that_exports_nothing_is_refused(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_stage(compose("stage=export", *words), tmp_path)
