"""Results about a trained model are in its run folder, unless hydra.run.dir says otherwise."""

from pathlib import Path

import pytest

import vaegan
from tests.conftest import CONF
from tests.untrained import make_run, save_vae
from vaegan.cli.result_folder import DEFAULT_DIR, find_run_folder
from vaegan.config import to_plain
from vaegan.runtime.atomic_files import write_json

SAMPLE = ["stage=sample", "num_images=1", "device=cpu"]


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """Return the folder of an untrained VAE below outputs/ in the current folder."""
    monkeypatch.chdir(tmp_path)
    run = make_run()
    folder = tmp_path / "outputs" / "vae" / "2026-01-31_12-00-00"
    (folder / "vae" / "checkpoints").mkdir(parents=True)
    save_vae(folder / "vae" / "checkpoints" / "best.ckpt", run)
    write_json(folder / "config.json", {"stage": "vae", "config": to_plain(run), "versions": {}})
    return folder


@pytest.mark.parametrize("path", ["", "vae", "vae/checkpoints/best.ckpt"])
def test_results_are_in_the_run_folder_of_the_model(run_folder, path):
    vaegan.run(*SAMPLE, f"ckpt={run_folder / path}")
    (image,) = run_folder.glob("sample/*/sample/000000.png")
    assert (image.parents[1] / ".hydra" / "overrides.yaml").is_file()
    assert {folder.name for folder in run_folder.parents[1].iterdir()} == {"vae"}


def test_the_run_of_an_export_and_of_last_is_found(run_folder):
    vaegan.run("stage=export", "ckpt=last")
    (export,) = run_folder.glob("export/*/export")
    vaegan.run(*SAMPLE, f"ckpt={export}")
    vaegan.run(*SAMPLE, "ckpt=last")
    assert len(list(run_folder.glob("sample/*/sample/000000.png"))) == 2
    assert vaegan.load("last").checkpoint.path.parents[2] == run_folder.relative_to(Path.cwd())


def test_a_given_folder_is_used(run_folder):
    vaegan.run(*SAMPLE, "ckpt=last", "hydra.run.dir=here")
    assert not (run_folder / "sample").exists()


def test_a_checkpoint_outside_of_a_run_has_its_results_in_outputs(run_folder, tmp_path):
    path = save_vae(tmp_path / "alone.ckpt", make_run())
    vaegan.run(*SAMPLE, f"ckpt={path}")
    assert len(list(tmp_path.glob("outputs/sample/*/sample/000000.png"))) == 1


def test_a_run_folder_that_cannot_be_written_to_is_left_alone(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    vaegan.run(*SAMPLE, f"ckpt={run_folder}")
    assert len(list(tmp_path.glob("outputs/sample/*/sample/000000.png"))) == 1


def test_a_refused_command_leaves_the_run_folder_as_it_was(run_folder):
    before = set(run_folder.rglob("*"))
    with pytest.raises(ValueError, match="mean_or_draw must be mean or draw"):
        vaegan.run(*SAMPLE, f"ckpt={run_folder}", "mean_or_draw=median")
    with pytest.raises(ValueError, match="images=nowhere does not exist"):
        vaegan.run("stage=encode", f"ckpt={run_folder}", "images=nowhere")
    assert set(run_folder.rglob("*")) == before


def test_only_the_folder_of_a_training_run_counts(run_folder, tmp_path):
    assert find_run_folder(run_folder / "vae" / "images") == run_folder
    write_json(tmp_path / "config.json", {})
    assert find_run_folder(tmp_path / "model.safetensors") is None


def test_the_default_is_that_of_the_config():
    assert f"dir: {DEFAULT_DIR}\n" in (CONF / "config.yaml").read_text()
