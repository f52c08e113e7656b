"""`vaegan.run`: the words of the command line, from Python."""

import json

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import vaegan
from tests.untrained import make_run, save_vae
from vaegan.cli import python_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty current folder."""
    monkeypatch.chdir(tmp_path)
    GlobalHydra.instance().clear()
    return tmp_path


def test_a_stage_writes_to_the_folder_of_the_command_line(folder):
    path = save_vae(folder / "vae.ckpt", make_run())
    assert vaegan.run("stage=sample", f"ckpt={path}", "num_images=2", "device=cpu") is None
    (record,) = folder.glob("outputs/sample/*/sample/samples.json")
    assert json.loads(record.read_text())["seeds"] == [0, 1]
    assert (
        (record.parents[1] / ".hydra" / "overrides.yaml").read_text().startswith("- stage=sample")
    )
    vaegan.run("stage=sample", f"ckpt={path}", "num_images=1", "hydra.run.dir=here", "device=cpu")
    assert (folder / "here" / "sample" / "000000.png").exists()


def test_the_images_are_those_of_the_command_line(folder, train):
    words = ["stage=sample", f"ckpt={save_vae(folder / 'vae.ckpt', make_run())}", "num_images=2"]
    vaegan.run(*words, "device=cpu", "hydra.run.dir=python")
    exit_code, _, err = train(*words, "device=cpu", "hydra.run.dir=shell")
    assert exit_code is None, err
    for name in ("000000.png", "000001.png"):
        first, second = (folder / run / "sample" / name for run in ("python", "shell"))
        assert first.read_bytes() == second.read_bytes()


def test_paths_and_folders_are_those_of_the_command_line(folder, monkeypatch):
    monkeypatch.setattr(python_run, "execute", lambda run, folder: folder)
    assert vaegan.run("stage=vae", "hydra.run.dir=lr=0.1 (a)").name == "lr=0.1 (a)"
    for suffix in ("", "_2"):  # commands of the same year
        assert vaegan.run("stage=vae", "hydra.run.dir=out/${now:%Y}").name[4:] == suffix


def test_another_stage_in_a_run_folder_keeps_the_settings_of_the_run(folder, monkeypatch):
    monkeypatch.setattr(python_run, "execute", lambda run, folder: None)
    vaegan.run("stage=vae", "hydra.run.dir=run")
    (folder / "run" / "config.json").write_text("{}")
    vaegan.run("stage=sample", "ckpt=run", "hydra.run.dir=run")
    hydra = folder / "run" / ".hydra"
    assert "stage=vae" in (hydra / "overrides.yaml").read_text()
    assert "stage=sample" in (hydra / "sample" / "overrides.yaml").read_text()


def test_hydra_is_left_as_it_was(folder, monkeypatch):
    outer_config = HydraConfig.instance().cfg
    monkeypatch.setattr(python_run, "execute", lambda run, folder: (run, folder))
    GlobalHydra.instance().hydra = "outer"
    run, path = vaegan.run("stage=vae", "latent_dim=5", "hydra.run.dir=x")
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    assert run.latent_dim == 5 and path.name == "x"
    assert outer == "outer" and HydraConfig.instance().cfg is outer_config


@pytest.mark.parametrize(
    "words, message",
    [
        (["stage=vae", "latent_dimm=3"], "unknown key latent_dimm .* Did you mean latent_dim"),
        (["stage=vea"], "stage=vea is not a known choice"),
        (["stage=vae", "latent_dim=0"], "latent_dim must be at least 1"),
        (["-m", "seed=0,1"], "vaegan.run must be given settings KEY=VALUE, not options"),
        (["stage=evaluate", "dataset.root=x"], "no dataset is selected"),
        (["stage=evaluate", "dataset.root=x", "ckpt=y"], "ckpt=y does not exist"),
        (["sample"], "sample: to select a stage, write stage=sample"),
        (["stage=sample", "ckpt=last"], "ckpt=last: there is no finished"),
    ],
)
def test_errors_are_value_errors_with_the_messages_of_the_command_line(folder, words, message):
    with pytest.raises(ValueError, match=message):
        vaegan.run(*words)
    assert not list(folder.iterdir())
