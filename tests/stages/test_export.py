"""Stage export: exports give the same metrics and the same GAN as checkpoints, bit for bit."""

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
    """Export the best checkpoint of a result; return the folder of the export."""
    run_stage(compose("stage=export", f"ckpt={result.checkpoint}"), folder)
    return folder / "export"


@pytest.fixture(scope="module")
def exported(vae_result, gan_result, tmp_path_factory):
    """Return the folders of the exports of both stages."""
    folder = tmp_path_factory.mktemp("exported")
    results = {"vae": vae_result[1], "gan": gan_result[1]}
    return {stage: export(result, folder / stage) for stage, result in results.items()}


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_export_evaluates_to_the_same_metrics(exported, vae_result, gan_result, stage, tmp_path):
    result = {"vae": vae_result, "gan": gan_result}[stage][1]
    paths = {
        "ckpt": result.checkpoint,
        "folder": exported[stage],
        "file": exported[stage] / "model.safetensors",
    }
    metrics = {
        name: run_stage(compose(*EVALUATION, f"ckpt={path}"), tmp_path / name).metrics
        for name, path in paths.items()
    }
    assert metrics["folder"] == metrics["file"] == metrics["ckpt"]


def test_gan_trained_from_an_export_equals_one_trained_from_the_checkpoint(
    exported, gan_result, tmp_path
):
    result = run_stage(compose(*SMALL_GAN, f"vae_ckpt={exported['vae']}"), tmp_path)
    state, expected = (load_checkpoint(each.checkpoint).state for each in (result, gan_result[1]))
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in state)
    assert result.metrics == gan_result[1].metrics
    compute = [
        json.loads((each.folder / "run.json").read_text())["stage1_compute"]
        for each in (result, gan_result[1])
    ]
    assert compute[0] == compute[1] > 0


@pytest.mark.parametrize("stage", ["vae", "gan"])
def test_export_contains_only_weights_for_inference(exported, vae_result, gan_result, stage):
    checkpoint = load_checkpoint({"vae": vae_result, "gan": gan_result}[stage][1].checkpoint)
    loaded = load_checkpoint(exported[stage] / "model.safetensors")
    names = {path.name for path in exported[stage].iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md", "samples.png"}
    prefixes = {"vae": ("vae.",), "gan": ("vae.", "ema.module.")}[stage]
    assert set(loaded.state) == {key for key in checkpoint.state if key.startswith(prefixes)}
    assert all(torch.equal(value, checkpoint.state[key]) for key, value in loaded.state.items())
    assert (loaded.stage, loaded.image_shape, loaded.run, loaded.vae, loaded.epoch) == (
        checkpoint.stage,
        checkpoint.image_shape,
        checkpoint.run,
        checkpoint.vae,
        checkpoint.epoch,
    )
    assert loaded.vae_flops == loaded.training_flops() == checkpoint.training_flops()
    assert load_file(exported[stage] / "model.safetensors").keys() == loaded.state.keys()


def test_round_trip_of_all_learned_components(tmp_path):
    """VampPrior, flow posterior, optimal noise scale, and an aggregate posterior."""
    parts = [
        "prior=vamp_prior",
        "prior.num_pseudo_inputs=8",
        "posterior=flow",
        "likelihood=gaussian",
    ]
    short = ["likelihood.scale=optimal", "trainer.max_epochs=1", "trainer.limit_train_batches=0.5"]
    vae = run_stage(compose("stage=vae", *SMALL_VAE[1:], *parts, *short), tmp_path)
    overrides = [
        *SMALL_GAN,
        "warm_start.aggregate_posterior=true",
        "trainer.max_epochs=1",
        f"vae_ckpt={vae.folder}",
    ]
    gan = run_stage(compose(*overrides), tmp_path / "gan")
    for result in (vae, gan):
        before = load_checkpoint(result.checkpoint)
        after = load_checkpoint(
            export(result, tmp_path / f"of_{before.stage}") / "model.safetensors"
        )
        latents = [each.build_latents() for each in (before, after)]
        samples = []
        for module in latents:
            torch.manual_seed(0)
            samples.append(module().sample((5,)))
        assert torch.equal(*samples)
        z = samples[0]
        images = [each.build_vae().decode(z).mean for each in (before, after)]
        if before.stage == "gan":
            assert latents[1].aggregate is not None
            images = [each.build_generator()(z) for each in (before, after)]
        assert torch.equal(*images)


def test_run_folder_can_be_exported_and_its_export_is_found(exported, vae_result, tmp_path, capsys):
    run_stage(compose("stage=export", f"ckpt={vae_result[0]}"), tmp_path)
    path = tmp_path / "export" / "model.safetensors"
    assert path.read_bytes() == (exported["vae"] / "model.safetensors").read_bytes()
    for candidate in (tmp_path, path.parent, path):
        assert find_checkpoint(str(candidate), "ckpt", ["vae"]) == path
    out = capsys.readouterr().out
    assert (
        f"stage=evaluate ckpt={path.parent}" in out and f"stage=gan vae_ckpt={path.parent}" in out
    )


def test_existing_export_folder_is_not_overwritten(exported, vae_result):
    with pytest.raises(ValueError, match="export already contains a run"):
        run_stage(compose("stage=export", f"ckpt={vae_result[0]}"), exported["vae"].parent)


def test_gan_export_is_rejected_as_vae_ckpt(exported, tmp_path):
    with pytest.raises(
        ValueError, match="is a stage=gan checkpoint; give the stage=vae checkpoint"
    ):
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={exported['gan']}"), tmp_path)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "ckpt must be the folder or the checkpoint of a stage=vae or stage=gan run"),
        (
            ["ckpt=x", "sweep_metric=val/elbo"],
            "sweep_metric must be empty in stage=export, which has no metrics",
        ),
        (
            ["ckpt=https://example.org/x.ckpt"],
            "ckpt=https://example.org/x.ckpt: URLs are not supported",
        ),
    ],
)
def test_invalid_export_commands_are_rejected(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_stage(compose("stage=export", *overrides), tmp_path)
