"""`last` in place of a path, and the link outputs/latest."""

import os

import pytest

from vaegan.cli.resume import expand_resume
from vaegan.runtime.last_run import find_last_checkpoint, find_last_run, link_latest


def write(path, age):
    """Write an empty file that is `age` seconds old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    time = 1_700_000_000 - age
    os.utime(path, (time, time))


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """Return a folder outputs/ with runs of both stages, in the current folder."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "outputs"
    write(root / "vae" / "old" / "vae" / "checkpoints" / "best.ckpt", 40)
    write(root / "pipeline" / "new" / "vae" / "checkpoints" / "best.ckpt", 30)
    write(root / "pipeline" / "new" / "gan" / "checkpoints" / "best.ckpt", 20)
    write(root / "named" / "vae" / "checkpoints" / "best.ckpt", 35)
    write(root / "vae" / "old" / "config.json", 50)
    write(root / "pipeline" / "new" / "config.json", 45)
    return root


def test_last_is_the_newest_checkpoint_of_the_right_kind(outputs, caplog):
    caplog.set_level("INFO")
    assert find_last_checkpoint("ckpt", ["vae", "gan"]).parts[1:4] == ("pipeline", "new", "gan")
    assert find_last_checkpoint("vae_ckpt", ["vae"]).parts[1:4] == ("pipeline", "new", "vae")
    assert caplog.messages == [
        "ckpt=last: outputs/pipeline/new/gan",
        "vae_ckpt=last: outputs/pipeline/new/vae",
    ]
    write(outputs / "newest" / "vae" / "checkpoints" / "best.ckpt", 0)
    assert "newest" in find_last_checkpoint("ckpt", ["vae", "gan"]).parts


def test_last_run_is_the_one_that_was_started_last(outputs):
    assert find_last_run("resume").name == "new"


def test_an_export_is_not_a_training_run(outputs):
    write(outputs / "named" / "export" / "config.json", 0)
    assert find_last_run("resume").name == "new"


def test_without_runs_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="ckpt=last: there is no finished stage=vae or stage=gan"):
        find_last_checkpoint("ckpt", ["vae", "gan"])
    with pytest.raises(ValueError, match="resume=last: there is no training run below"):
        expand_resume(["resume=last"])


def test_latest_is_a_link_to_the_newest_run(outputs):
    link_latest(outputs / "vae" / "old")
    link_latest(outputs / "pipeline" / "new")
    assert (outputs / "latest").resolve() == outputs / "pipeline" / "new"
    assert "latest" not in find_last_run("resume").parts
    assert "latest" not in find_last_checkpoint("ckpt", ["vae", "gan"]).parts


def test_runs_elsewhere_and_file_systems_without_links_are_left_alone(outputs, monkeypatch):
    link_latest(outputs.parent / "elsewhere")

    def fail(*args, **kwargs):
        raise OSError("links are not allowed")

    monkeypatch.setattr("pathlib.Path.symlink_to", fail)
    link_latest(outputs / "vae" / "old")
    assert not (outputs / "latest").exists()
