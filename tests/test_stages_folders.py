"""Whose folder a run's is, and what another command may do with it."""

import pytest

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from tests.faults import files

pytestmark = pytest.mark.slow


def test_a_run_that_has_ended_is_not_done_again(vae_result, capsys):
    folder, result = vae_result
    before = files(folder / "vae")
    again = compose(*SMALL_VAE, "resume=true", "loader.num_workers=3").execute(folder)
    assert again.metrics == result.metrics and again.checkpoint == result.checkpoint
    assert files(folder / "vae") == before
    assert "vae test/elbo" in capsys.readouterr().out


def test_other_settings_are_refused_by_name(vae_result):
    words = ["seed=3", "optimizer.lr=0.5", "likelihood=gaussian", "resume=true"]
    with pytest.raises(ValueError) as error:
        compose(*SMALL_VAE, *words).execute(vae_result[0])
    message = str(error.value)
    assert "seed=3 (was 0)" in message and "optimizer.lr=0.5 (was 0.003)" in message
    assert "likelihood.name=gaussian (was bernoulli)" in message and "encoder" not in message


def test_another_stage_is_refused(vae_result):
    with pytest.raises(ValueError, match="begun with other settings.*stage=gan"):
        compose(*SMALL_GAN, f"vae_ckpt={vae_result[0]}", "resume=true").execute(vae_result[0])


def test_a_folder_of_an_older_version_is_left_alone(tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "something").touch()
    with pytest.raises(ValueError, match="holds a run already, which is never overwritten, and has no config.json"):
        compose(*SMALL_VAE, "resume=true").execute(tmp_path)
    assert (tmp_path / "vae" / "something").exists()


def test_a_run_with_resume_in_an_empty_folder_is_begun(tmp_path):
    assert compose(*SMALL_VAE, "trainer.max_epochs=1", "resume=true").execute(tmp_path).metrics


def test_other_versions_of_the_libraries_are_said(tmp_path, monkeypatch, caplog):
    words = [*SMALL_VAE, "trainer.max_epochs=1", "resume=true"]
    compose(*words).execute(tmp_path)
    monkeypatch.setattr("vaegan.stages.folders.version", lambda name: "0.1")
    compose(*words).execute(tmp_path)
    assert "torch 2." in caplog.text and "has become 0.1 since the run was begun" in caplog.text
