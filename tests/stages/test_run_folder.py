"""Run folders: protection from other runs, resuming, and checks of moved inputs."""

import shutil
import signal

import pytest

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from tests.faults import output_files
from tests.image_files import fill
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.gan.module import GANModule
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.signals import SIGNAL_STATE, Interrupted
from vaegan.stages.run_folder import RunFolder
from vaegan.stages.stage_table import run_stage, stage_of
from vaegan.vae.module import VAEModule

pytestmark = pytest.mark.slow


def test_finished_run_is_not_repeated(vae_result, capsys):
    folder, result = vae_result
    before = output_files(folder / "vae")
    again = run_stage(compose(*SMALL_VAE, "resume=true", "loader.num_workers=3"), folder)
    assert again.metrics == result.metrics and again.checkpoint == result.checkpoint
    assert output_files(folder / "vae") == before
    assert "vae test/elbo" in capsys.readouterr().out


def test_changed_settings_are_rejected_by_name(vae_result):
    overrides = ["seed=3", "optimizer.lr=0.5", "likelihood=gaussian", "resume=true"]
    with pytest.raises(ValueError) as error:
        run_stage(compose(*SMALL_VAE, *overrides), vae_result[0])
    message = str(error.value)
    assert "seed=3 (was 0)" in message and "optimizer.lr=0.5 (was None)" in message
    assert "likelihood.name=gaussian (was bernoulli)" in message and "encoder" not in message


def test_a_longer_duration_is_rejected_with_the_way_to_train_further(vae_result):
    with pytest.raises(
        ValueError,
        match=r"\(optimizer.lr_warmup=0.05, optimizer.lr_final=0\).*start a new run from this "
        "model, repeating the other settings: .*init=",
    ):
        run_stage(compose(*SMALL_VAE, "trainer.max_epochs=3", "resume=true"), vae_result[0])


def test_another_stage_is_rejected(vae_result):
    with pytest.raises(ValueError, match="started with other settings.*stage=gan"):
        run_stage(compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "resume=true"), vae_result[0])


def test_folder_without_config_json_is_left_unchanged(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "something").touch()
    with pytest.raises(ValueError, match="already contains a run .* has no config.json"):
        run_stage(compose(*SMALL_VAE, "resume=true"), tmp_path)
    assert (tmp_path / "vae" / "something").exists()


def test_resume_in_an_empty_folder_starts_a_run(tmp_path):
    assert run_stage(compose(*SMALL_VAE, "trainer.max_epochs=1", "resume=true"), tmp_path).metrics


def test_changed_library_versions_are_logged(tmp_path, monkeypatch, caplog):
    overrides = [*SMALL_VAE, "trainer.max_epochs=1", "resume=true"]
    run_stage(compose(*overrides), tmp_path)
    monkeypatch.setattr("vaegan.stages.run_folder.version", lambda name: "0.1")
    run_stage(compose(*overrides), tmp_path)
    assert (
        "torch was 2." in caplog.text
        and "when config.json was written and is now 0.1" in caplog.text
    )


@pytest.mark.parametrize("stage, first_stage", [("gan", "gan"), ("pipeline", "vae")])
def test_a_run_that_starts_again_records_its_present_paths(stage, first_stage, tmp_path):
    """An attempt that was killed before its first checkpoint has left config.json."""

    def recorded():
        return read_json(tmp_path / "config.json")["config"]["vae_ckpt"]

    RunFolder(tmp_path, {"vae_ckpt": "old"}, stage).write_config()
    RunFolder(tmp_path, {"vae_ckpt": "interrupted"}, stage).prepare_resume(signal.SIGTERM)
    assert recorded() == "interrupted"
    folder = RunFolder(tmp_path, {"vae_ckpt": "new"}, stage).open_stage(first_stage)
    assert recorded() == "new"
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    RunFolder(tmp_path, {"vae_ckpt": "moved"}, stage).open_stage("gan")
    assert recorded() == "new"
    (folder / "checkpoints" / "last.ckpt").rename(folder / "result.json")  # a finished stage
    RunFolder(tmp_path, {"vae_ckpt": "moved"}, stage).write_config()
    assert recorded() == "new"


def stop_after_two_batches(run, folder, monkeypatch):
    """Start training and stop it gracefully after the second batch."""
    module = {"vae": VAEModule, "gan": GANModule}[stage_of(run)]
    original, indices = module.training_step, []

    def training_step(self, batch, index):
        indices.append(index)
        if len(indices) == 2:
            SIGNAL_STATE.signum = 15
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(module, "training_step", training_step)
        with pytest.raises(Interrupted, match="stopped after batch 2"):
            run_stage(run, folder)


def test_changed_images_are_rejected_but_moved_ones_are_accepted(tmp_path, monkeypatch):
    first, other = tmp_path / "first", tmp_path / "other"
    fill(first, 200, width=12, height=12)
    fill(other, 200, width=20, height=12)
    overrides = [word for word in SMALL_VAE if not word.startswith("dataset")] + [
        "dataset=image_folder"
    ]
    overrides += [
        "dataset.image_size=8",
        "dataset.channels=1",
        "likelihood=gaussian",
        "loader.batch_size=32",
    ]
    run = compose(*overrides, f"dataset.root={first}")
    stop_after_two_batches(run, tmp_path / "run", monkeypatch)
    with pytest.raises(
        ValueError, match="the data set differs from the one that the run was started with"
    ):
        run_stage(compose(*overrides, f"dataset.root={other}", "resume=true"), tmp_path / "run")
    moved = first.rename(tmp_path / "moved")
    assert run_stage(
        compose(*overrides, f"dataset.root={moved}", "resume=true"), tmp_path / "run"
    ).metrics


def test_another_vae_is_rejected_but_a_moved_one_is_accepted(vae_result, tmp_path, monkeypatch):
    other = run_stage(compose(*SMALL_VAE, "seed=5", "trainer.max_epochs=1"), tmp_path / "other")
    run = compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}")
    stop_after_two_batches(run, tmp_path / "run", monkeypatch)
    with pytest.raises(ValueError, match="vae_ckpt is not the VAE that this GAN was started from"):
        run_stage(
            compose(*SMALL_GAN, f"vae_ckpt={other.folder.parent}", "resume=true"), tmp_path / "run"
        )
    moved = shutil.copytree(vae_result[0], tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    resumed = compose(*SMALL_GAN, f"vae_ckpt={moved.name}", "resume=true")
    assert run_stage(resumed, tmp_path / "run").metrics


def test_config_in_a_checkpoint_does_not_contain_resume(tmp_path):
    run = compose(*SMALL_VAE, "trainer.max_epochs=1", "resume=true")
    checkpoint = load_checkpoint(run_stage(run, tmp_path).checkpoint)
    assert checkpoint.run["resume"] is False
