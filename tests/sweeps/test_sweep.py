"""Sweeps: what a user sees at their end, after failures, and when they run again."""

import csv

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from PIL import Image

from tests.conftest import SMALL_VAE
from tests.faults import do
from vaegan.stages.vae import train_vae
from vaegan.sweeps.outcome import FILE, Outcome, read_outcome
from vaegan.sweeps.summary import summarize

TINY_VAE = [*SMALL_VAE, "trainer.max_epochs=1"]


def write(folder, words, value, tag="val/elbo", error=None):
    folder.mkdir(parents=True, exist_ok=True)
    status = "finished" if error is None else "failed"
    Outcome(
        status, ["stage=vae", *words], {}, tag, value, {tag: value, "test/kl": 20.0}, error
    ).write(folder)


def row(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def panels(monkeypatch, folder):
    """The axes of summary.png, by what is written under them."""
    from matplotlib.figure import Figure

    kept = []
    real = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: (kept.append(figure), real(figure, *a, **k))
    )
    summarize(folder)
    return {axis.get_xlabel(): axis for axis in kept[0].axes}


def line(axis, label, is_joined=False):
    (found,) = [found for found in axis.get_lines() if found.get_label() == label]
    assert (found.get_linestyle() == "-") == is_joined
    return found.get_xydata().tolist()


def test_the_summary_is_a_table_of_what_varies_with_the_best_job_marked(tmp_path, capsys):
    for job, (lr, value) in enumerate(
        [("1e-3", -90.0), ("2e-3", -88.25), ("1e-2", None)] + [("2e-3", -89.0)] * 8
    ):
        error = "lr | too large" if value is None else None
        write(tmp_path / str(job), [f"optimizer.lr={lr}", f"seed={job}"], value, error=error)
    assert len(summarize(tmp_path)) == 11
    out = capsys.readouterr().out
    assert "job 2 failed: lr | too large" in out and "summary.png" in out
    assert [line.split()[0] for line in out.splitlines() if "finished" in line][-2:] == [
        "9",
        "10",
    ]  # and not 1, 10, 2
    (best,) = [line.split() for line in out.splitlines() if line.rstrip().endswith("best")]
    assert best == ["1", "2e-3", "1", "finished", "val/elbo", "-88.25", "best"]
    table = [
        row(line)
        for line in (tmp_path / "summary.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert table[0] == ["job", "optimizer.lr", "seed", "status", "metric", "value", ""]
    assert table[3] == ["1", "2e-3", "1", "finished", "val/elbo", "-88.25", "best"]
    assert table[4][3] == "failed" and len(table) == 13
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (
        rows[1]["value"] == "-88.25"
        and rows[1]["test/kl"] == "20.0"
        and rows[2]["error"] == "lr | too large"
    )
    assert "stage" not in rows[0]
    with Image.open(tmp_path / "summary.png") as image:
        assert image.size[0] > 300


def test_long_numbers_are_shortened_and_long_rows_are_not_cut(tmp_path, capsys):
    key = "a_part_with_a_long_name.and_a_setting_with_a_longer_one"
    for job, lr in enumerate(("0.0027113869941317406", "0.002")):
        write(
            tmp_path / f"2026-01-31_12-00-0{job}_0",
            [f"optimizer.lr={lr}", f"{key}={job}", f"seed={job}"],
            -90.0,
        )
    summarize(tmp_path)
    (found,) = [
        line.split()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("2026-01-31_12-00-00")
    ]
    assert found == [
        "2026-01-31_12-00-00_0",
        "0.002711",
        "0",
        "0",
        "finished",
        "val/elbo",
        "-90",
        "best",
    ]
    assert "0.0027113869941317406" in (tmp_path / "summary.csv").read_text()


@pytest.mark.parametrize(
    "tag, best",
    [
        *(
            (f"val/{name}", "1")
            for name in ("elbo", "iw_bound", "log_likelihood", "recall", "precision", "coverage")
        ),
        *((f"test/{name}", "0") for name in ("nll", "frechet_distance", "kernel_distance", "kl")),
        ("val/unknown", None),
    ],
)
def test_the_best_is_the_largest_or_the_smallest_as_the_metric_wants(tmp_path, capsys, tag, best):
    for job, value in enumerate((1.0, 2.0)):
        write(tmp_path / str(job), [f"seed={job}"], value, tag)
    summarize(tmp_path)
    marked = [
        text.split()[0]
        for text in capsys.readouterr().out.splitlines()
        if text.rstrip().endswith("best")
    ]
    assert marked == ([] if best is None else [best])


def test_the_figure_has_a_panel_for_each_override_and_medians_over_seeds(tmp_path, monkeypatch):
    jobs = [
        ("1e-4", "elbo", 0, 30.0),
        ("1e-4", "elbo", 1, 10.0),
        ("1e-4", "elbo", 2, 11.0),
        ("1e-2", "iwae", 0, 5.0),
    ]
    for job, (lr, objective, seed, value) in enumerate(jobs):
        words = [f"optimizer.lr={lr}", f"objective={objective}", f"seed={seed}"]
        write(tmp_path / str(job), words, value, "val/frechet_distance")
    write(tmp_path / "4", ["optimizer.lr=1", "objective=dreg", "seed=0"], None, error="it broke")
    found = panels(monkeypatch, tmp_path)
    assert set(found) == {"optimizer.lr", "objective"}
    lr, objective = found["optimizer.lr"], found["objective"]
    assert lr.get_xscale() == "log" and lr.get_yscale() == "linear"
    assert line(lr, "a job") == [[1e-4, 30.0], [1e-4, 10.0], [1e-4, 11.0], [1e-2, 5.0]]
    assert line(lr, "median", is_joined=True) == [[1e-4, 11.0], [1e-2, 5.0]]
    assert line(lr, "best") == [[1e-2, 5.0]]
    assert [text.get_text() for text in objective.get_xticklabels()] == ["elbo", "iwae"]
    assert line(objective, "median") == [[0.0, 11.0], [1.0, 5.0]]


def test_seeds_alone_make_a_panel_and_values_over_decades_a_logarithmic_axis(tmp_path, monkeypatch):
    for job, value in enumerate((1.0, 31.0)):
        write(tmp_path / str(job), [f"seed={job}"], value, "val/nll")
    found = panels(monkeypatch, tmp_path)
    assert list(found) == ["seed"]
    assert found["seed"].get_xscale() == "linear" and found["seed"].get_yscale() == "log"


def test_jobs_of_two_metrics_have_a_best_each(tmp_path, capsys):
    for job, tag in enumerate(["val/elbo", "val/elbo", "val/iw_bound"]):
        write(tmp_path / str(job), [f"latent_dim={job}"], -90.0 - job, tag)
    summarize(tmp_path)
    out = capsys.readouterr().out
    assert [text.split()[0] for text in out.splitlines() if text.rstrip().endswith("best")] == [
        "0",
        "2",
    ]


def test_a_damaged_outcome_and_jobs_without_any_value_are_shown_too(tmp_path, capsys):
    write(tmp_path / "0", ["seed=0"], None, "")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / FILE).write_text("{")
    assert summarize(tmp_path)["1"].status == "failed"
    assert "is damaged" in capsys.readouterr().out
    assert (tmp_path / "summary.md").exists() and not (tmp_path / "summary.png").exists()
    assert summarize(tmp_path / "empty") == {}


@pytest.mark.slow
def test_a_failed_job_leaves_the_others_and_the_same_sweep_again_runs_only_what_is_missing(
    train, tmp_path
):
    sweep, checkpoint = (
        tmp_path / "sweep",
        tmp_path / "sweep" / "1" / "vae" / "checkpoints" / "best.ckpt",
    )
    ended, out, err = train("-m", *TINY_VAE, "loader.batch_size=512,64", "hydra.sweep.dir=sweep")
    assert ended == "error: 1 of 2 jobs failed: 0", out + err
    reason = "loader.batch_size must be at most the 256 training images; got 512"
    assert f"this job of the sweep failed: {reason}" in out
    failed, finished = read_outcome(sweep / "0"), read_outcome(sweep / "1")
    assert (failed.status, failed.value, finished.status, finished.metric) == (
        "failed",
        None,
        "finished",
        "val/elbo",
    )
    assert (
        finished.metrics["val/elbo"] == finished.value
        and "loader.batch_size=64" in finished.overrides
    )
    assert finished.config["loader"]["batch_size"] == 64
    assert {"summary.md", "summary.csv", "summary.png"} < {path.name for path in sweep.iterdir()}
    written = checkpoint.stat().st_mtime_ns

    ended, out, _ = train("-m", *TINY_VAE, "loader.batch_size=128,64", "hydra.sweep.dir=sweep")
    assert ended is None
    assert (
        out.count("skipped") == 1
        and f"{sweep / '1'} has its outcome, val/elbo={finished.value}" in out
    )
    assert checkpoint.stat().st_mtime_ns == written
    assert read_outcome(sweep / "0").status == "finished"

    ended, out, _ = train("-m", *TINY_VAE, "loader.batch_size=128,32", "hydra.sweep.dir=sweep")
    assert "holds a finished job of other settings (loader.batch_size=32 (was 64))" in ended
    assert "Launching" not in out and read_outcome(sweep / "1") == finished


@pytest.mark.slow
def test_a_sweep_can_return_the_nll(train, tmp_path):
    ended, out, err = train("-m", *TINY_VAE, "sweep_metric=val/nll", "hydra.sweep.dir=sweep")
    assert ended is None, out + err
    found = read_outcome(tmp_path / "sweep" / "0")
    assert found.metric == "val/nll" and found.value == found.metrics["val/nll"]
    assert 0 < found.value < -found.metrics["val/elbo"] + 1


@pytest.mark.parametrize(
    "choice",
    [
        "hydra/sweeper=optuna",
        "experiment=tune_vae",
        "hydra/launcher=processes",
        "hydra/launcher=ray_local",
    ],
)
def test_a_plugin_that_is_missing_is_named_with_the_command_that_brings_it(
    train, monkeypatch, choice
):
    Plugins.instance()  # finds those that are installed, once in a process
    groups = ConfigStore.instance().repo["hydra"]
    for group, name in (("sweeper", "optuna"), ("launcher", "joblib"), ("launcher", "ray")):
        monkeypatch.delitem(groups.get(group, {}), f"{name}.yaml", raising=False)
    ended, _, _ = train("-m", choice)
    assert "needs a plugin that is not installed: pip install 'vaegan[sweep]'" in ended


@pytest.mark.slow
def test_a_study_goes_on_after_an_interruption_and_after_a_failed_trial(
    train, tmp_path, monkeypatch
):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
    optuna = pytest.importorskip("optuna")  # its import warns
    words = [
        "experiment=tune_vae",
        *TINY_VAE,
        "objective.beta_warmup_epochs=0",
        "hydra.sweep.dir=study",
    ]
    real, calls = train_vae, []

    def interrupted(run, output_dir):
        calls.append(output_dir)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(run, output_dir)

    monkeypatch.setattr("vaegan.stages.vae.train_vae", interrupted)
    assert train(*words, "hydra.sweeper.n_trials=2")[0] == 130
    ended, out, _ = train(*words, "loader.batch_size=512", "hydra.sweeper.n_trials=2")
    assert (
        ended == f"error: 2 of 3 jobs failed: {', '.join(folder.name for folder in calls[2:])}"
    ), out
    study = optuna.load_study(study_name="vae", storage=f"sqlite:///{tmp_path}/study/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "FAIL", "FAIL"]
    finished = read_outcome(calls[0])
    assert study.best_value == finished.value == finished.metrics["val/nll"]


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["study", "optuna"])
def test_a_study_without_any_finished_trial_says_so(train, tmp_path, sweeper):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
    pytest.importorskip("optuna")  # its import warns
    words = [f"hydra/sweeper={sweeper}", "hydra.sweeper.n_trials=1"]
    ended, out, _ = train("-m", "stage=compare", "runs=[no_such]", *words, "hydra.sweep.dir=sweep")
    assert ended.startswith("error: every trial of the study failed") and "no_such" in out
    assert "no_such" in read_outcome(tmp_path / "sweep" / "0").error


@pytest.mark.slow
def test_failed_jobs_of_other_processes_are_summed_up_too(train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra `sweep`")
    words = [
        "-m",
        "stage=compare",
        "runs=[no_such],[nor_such]",
        "hydra/launcher=processes",
        "hydra.sweep.dir=sweep",
    ]
    ended, out, err = train(*words)
    assert ended == "error: 2 of 2 jobs failed: 0, 1", out + err
    for job, folder in enumerate(["no_such", "nor_such"]):
        assert folder in read_outcome(tmp_path / "sweep" / str(job)).error
    assert "nor_such" in (tmp_path / "sweep" / "summary.md").read_text()


@pytest.mark.slow
def test_jobs_on_several_devices_have_settings_of_their_own_and_mixtures_are_refused(
    train, tmp_path
):
    words = ["-m", *TINY_VAE, "trainer.accelerator=cpu"]
    do(
        tmp_path / "log",
        lambda: train(*words, "trainer.devices=2", "seed=0,1", "hydra.sweep.dir=sweep"),
    )
    found = [read_outcome(tmp_path / "sweep" / job) for job in "01"]
    assert [job.config["seed"] for job in found] == [0, 1] and found[0].value != found[1].value
    for job in "01":
        checkpoint = torch.load(
            tmp_path / "sweep" / job / "vae" / "checkpoints" / "last.ckpt", weights_only=True
        )
        assert checkpoint["ImageDataModule"]["world_size"] == 2 and checkpoint["vaegan"]["run"][
            "seed"
        ] == int(job)
    ended, out, _ = train(*words, "trainer.devices=1,2")
    assert (
        "trainer.devices must be 1 in all jobs of a sweep, or in none" in ended
        and "Launching" not in out
    )


def test_a_sweep_in_processes_from_outside_is_refused(train, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    ended, out, _ = train("-m", *TINY_VAE, "seed=0,1")
    assert (
        "let trainer.devices=N start the processes of each job" in ended and "Launching" not in out
    )
