"""Stage runs: a table of training runs."""

import json
import os

import pytest
from filelock import FileLock

from tests.conftest import compose
from vaegan.reports.run_list import key_metric
from vaegan.stages.stage_table import run_stage


def make_run(folder, stage, age, dataset="mnist", results=()):
    """Write the files of a run; `results` has the metrics of its finished stages."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"dataset": {"name": dataset} if dataset else None}
    path = folder / "config.json"
    path.write_text(json.dumps({"stage": stage, "config": config}))
    os.utime(path, (1_700_000_000 - age,) * 2)
    for name, metrics in results:
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "checkpoints" / "best.ckpt").touch()
        (folder / name / "result.json").write_text(json.dumps({"metrics": metrics}))


def test_runs_are_listed_with_stage_data_status_and_metrics(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "outputs"
    elbo, distance = {"test/elbo": -95.91, "val/elbo": -96.0}, {"test/frechet_distance": 0.2213}
    make_run(root / "pipeline" / "b", "pipeline", 10, results=[("vae", elbo), ("gan", distance)])
    make_run(root / "vae" / "a", "vae", 20, "shapes", [("vae", {"val/elbo": -1.0})])
    make_run(root / "gan" / "c", "gan", 5, None)
    make_run(root / "pipeline" / "d", "pipeline", 4, results=[("vae", elbo)])
    make_run(root / "vae" / "e", "vae", 3)
    make_run(root / "vae" / "damaged", "nonsense", 3)
    (root / "latest").symlink_to(root / "pipeline" / "b")
    with FileLock(root / "vae" / "e" / ".lock"):
        run_stage(compose("stage=runs"), tmp_path)
    header, *rows = capsys.readouterr().out.strip().splitlines()
    assert header.split() == ["run", "started", "stage", "dataset", "status", "metrics"]
    assert [row.split()[0] for row in rows] == [
        "vae/a",
        "pipeline/b",
        "gan/c",
        "pipeline/d",
        "vae/e",
    ]
    assert rows[1].endswith("finished  test/elbo -95.9, test/frechet_distance 0.221")
    assert "shapes" in rows[0] and "same as VAE" in rows[2]
    assert [word for word in ("failed", "stopped", "running") if word not in "".join(rows)] == []
    assert "stopped" in rows[3] and "running" in rows[4]


def test_a_folder_without_runs_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="contains no training runs"):
        run_stage(compose("stage=runs", f"folder={tmp_path}"), tmp_path)
    with pytest.raises(ValueError, match="folder=nowhere is not a folder"):
        run_stage(compose("stage=runs", "folder=nowhere"), tmp_path)


def test_listing_runs_writes_nothing(tmp_path, train):
    make_run(tmp_path / "outputs" / "vae" / "a", "vae", 0)
    status, out, _ = train("stage=runs")
    assert status is None and "vae/a" in out
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"vae"}


def test_listing_runs_in_the_folder_of_a_running_run_writes_nothing(tmp_path, train):
    make_run(tmp_path, "vae", 0)
    with FileLock(tmp_path / ".lock"):
        status, out, _ = train("stage=runs", "folder=.")
    assert status is None and "running" in out
    assert {path.name for path in tmp_path.iterdir()} <= {"config.json", ".lock"}


def test_runs_of_other_users_are_listed(tmp_path, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    make_run(tmp_path / "a", "vae", 0)
    (tmp_path / "a" / ".lock").touch()
    run_stage(compose("stage=runs", f"folder={tmp_path}"), tmp_path)
    assert "failed" in capsys.readouterr().out


def test_a_gan_without_a_frechet_distance_shows_its_kernel_distance():
    metrics = {"test/recall": 0.5, "val/kernel_distance": 0.3, "test/kernel_distance": 0.2}
    assert key_metric("gan", metrics) == {"test/kernel_distance": 0.2}
