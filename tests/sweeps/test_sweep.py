"""Sweeps: summaries, failed jobs, and repeated sweeps."""

import csv

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from PIL import Image

from tests.conftest import SMALL_VAE
from tests.faults import run_in_process
from vaegan.metrics.metric_table import sweep_metrics
from vaegan.stages.vae import train_vae
from vaegan.sweeps.outcome import OUTCOME_FILE, Outcome, read_outcome
from vaegan.sweeps.summary import summarize

TINY_VAE = [*SMALL_VAE, "trainer.max_epochs=1"]


def write(folder, overrides, value, tag="val/elbo", error=None):
    """Write the outcome of a job."""
    folder.mkdir(parents=True, exist_ok=True)
    status = "finished" if error is None else "failed"
    Outcome(
        status, ["stage=vae", *overrides], {}, tag, value, {tag: value, "test/kl": 20.0}, error
    ).write(folder)


def split_row(line):
    """Return the cells of a Markdown table row."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def summary_axes(monkeypatch, folder):
    """Return the axes of summary.png by x-axis label."""
    from matplotlib.figure import Figure

    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, *a, **k: (figures.append(figure), savefig(figure, *a, **k)),
    )
    summarize(folder)
    return {axes.get_xlabel(): axes for axes in figures[0].axes}


def plotted_points(axes, label, is_joined=False):
    """Return the points of the line with a label."""
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    assert (line.get_linestyle() == "-") == is_joined
    return line.get_xydata().tolist()


def test_summary_lists_varying_keys_and_marks_the_best_job(tmp_path, capsys):
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
    ]  # numerical order, not 1, 10, 2
    (best,) = [line.split() for line in out.splitlines() if line.rstrip().endswith("best")]
    assert best == ["1", "2e-3", "1", "finished", "val/elbo", "-88.25", "best"]
    table = [
        split_row(line)
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


def test_long_numbers_are_shortened_and_long_rows_are_not_truncated(tmp_path, capsys):
    key = "component_with_a_long_name.setting_with_an_even_longer_name"
    for job, lr in enumerate(("0.0027113869941317406", "0.002")):
        write(
            tmp_path / f"2026-01-31_12-00-0{job}_0",
            [f"optimizer.lr={lr}", f"{key}={job}", f"seed={job}"],
            -90.0,
        )
    summarize(tmp_path)
    (cells,) = [
        line.split()
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("2026-01-31_12-00-00")
    ]
    assert cells == [
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
        *((f"test/{name}", "0") for name in ("nll", "kl", *sweep_metrics("gan"))),
        ("val/unknown", None),
    ],
)
def test_best_job_depends_on_the_direction_of_the_metric(tmp_path, capsys, tag, best):
    for job, value in enumerate((1.0, 2.0)):
        write(tmp_path / str(job), [f"seed={job}"], value, tag)
    summarize(tmp_path)
    marked = [
        text.split()[0]
        for text in capsys.readouterr().out.splitlines()
        if text.rstrip().endswith("best")
    ]
    assert marked == ([] if best is None else [best])


def test_figure_has_one_plot_per_override_and_medians_over_seeds(tmp_path, monkeypatch):
    jobs = [
        ("1e-4", "elbo", 0, 30.0),
        ("1e-4", "elbo", 1, 10.0),
        ("1e-4", "elbo", 2, 11.0),
        ("1e-2", "iwae", 0, 5.0),
    ]
    for job, (lr, objective, seed, value) in enumerate(jobs):
        overrides = [f"optimizer.lr={lr}", f"objective={objective}", f"seed={seed}"]
        write(tmp_path / str(job), overrides, value, "val/frechet_distance")
    write(tmp_path / "4", ["optimizer.lr=1", "objective=dreg", "seed=0"], None, error="it broke")
    axes = summary_axes(monkeypatch, tmp_path)
    assert set(axes) == {"optimizer.lr", "objective"}
    lr, objective = axes["optimizer.lr"], axes["objective"]
    assert lr.get_xscale() == "log" and lr.get_yscale() == "linear"
    assert plotted_points(lr, "job") == [[1e-4, 30.0], [1e-4, 10.0], [1e-4, 11.0], [1e-2, 5.0]]
    assert plotted_points(lr, "median", is_joined=True) == [[1e-4, 11.0], [1e-2, 5.0]]
    assert plotted_points(lr, "best") == [[1e-2, 5.0]]
    assert [text.get_text() for text in objective.get_xticklabels()] == ["elbo", "iwae"]
    assert plotted_points(objective, "median") == [[0.0, 11.0], [1.0, 5.0]]


def test_seed_is_plotted_if_only_it_varies_and_wide_ranges_use_a_log_axis(tmp_path, monkeypatch):
    for job, value in enumerate((1.0, 31.0)):
        write(tmp_path / str(job), [f"seed={job}"], value, "val/nll")
    axes = summary_axes(monkeypatch, tmp_path)
    assert list(axes) == ["seed"]
    assert axes["seed"].get_xscale() == "linear" and axes["seed"].get_yscale() == "log"


def test_each_metric_has_its_own_best_job(tmp_path, capsys):
    for job, tag in enumerate(["val/elbo", "val/elbo", "val/iw_bound"]):
        write(tmp_path / str(job), [f"latent_dim={job}"], -90.0 - job, tag)
    summarize(tmp_path)
    out = capsys.readouterr().out
    assert [text.split()[0] for text in out.splitlines() if text.rstrip().endswith("best")] == [
        "0",
        "2",
    ]


def test_damaged_outcomes_and_jobs_without_a_value_are_listed(tmp_path, capsys):
    write(tmp_path / "0", ["seed=0"], None, "")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / OUTCOME_FILE).write_text("{")
    assert summarize(tmp_path)["1"].status == "failed"
    assert "is damaged" in capsys.readouterr().out
    assert (tmp_path / "summary.md").exists() and not (tmp_path / "summary.png").exists()
    assert summarize(tmp_path / "empty") == {}


@pytest.mark.slow
def test_failed_job_does_not_stop_the_sweep_and_a_repeated_sweep_runs_only_unfinished_jobs(
    train, tmp_path
):
    sweep = tmp_path / "sweep"
    checkpoint = sweep / "1" / "vae" / "checkpoints" / "best.ckpt"
    exit_code, out, err = train(
        "-m", *TINY_VAE, "loader.batch_size=512,64", "hydra.sweep.dir=sweep"
    )
    assert exit_code == "error: 1 of 2 jobs failed: 0", out + err
    reason = "loader.batch_size must be at most 256, the number of training images; got 512"
    assert f"this sweep job failed: {reason}" in out
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

    exit_code, out, _ = train("-m", *TINY_VAE, "loader.batch_size=128,64", "hydra.sweep.dir=sweep")
    assert exit_code is None
    assert (
        out.count("skipped") == 1
        and f"{sweep / '1'} has already finished, val/elbo={finished.value}" in out
    )
    assert checkpoint.stat().st_mtime_ns == written
    assert read_outcome(sweep / "0").status == "finished"

    exit_code, out, _ = train("-m", *TINY_VAE, "loader.batch_size=128,32", "hydra.sweep.dir=sweep")
    assert (
        "contains a finished job with other settings (loader.batch_size=32 (was 64))" in exit_code
    )
    assert "Launching" not in out and read_outcome(sweep / "1") == finished


@pytest.mark.slow
def test_nll_is_available_as_a_sweep_metric(train, tmp_path):
    exit_code, out, err = train("-m", *TINY_VAE, "sweep_metric=val/nll", "hydra.sweep.dir=sweep")
    assert exit_code is None, out + err
    outcome = read_outcome(tmp_path / "sweep" / "0")
    assert outcome.metric == "val/nll" and outcome.value == outcome.metrics["val/nll"]
    assert 0 < outcome.value < -outcome.metrics["val/elbo"] + 1


@pytest.mark.parametrize(
    "choice",
    [
        "hydra/sweeper=optuna",
        "experiment=tune_vae",
        "hydra/launcher=processes",
        "hydra/launcher=ray_local",
    ],
)
def test_missing_plugin_error_shows_the_install_command(train, monkeypatch, choice):
    Plugins.instance()  # discovers installed plugins once per process
    groups = ConfigStore.instance().repo["hydra"]
    for group, name in (("sweeper", "optuna"), ("launcher", "joblib"), ("launcher", "ray")):
        monkeypatch.delitem(groups.get(group, {}), f"{name}.yaml", raising=False)
    exit_code, _, _ = train("-m", choice)
    extra = "ray" if "ray" in choice else "sweep"
    assert f"is not installed. Install it with: uv sync --extra {extra}, or pip" in exit_code


@pytest.mark.slow
def test_study_continues_after_an_interruption_and_after_failed_trials(
    train, tmp_path, monkeypatch
):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
    optuna = pytest.importorskip("optuna")  # its import warns
    overrides = [
        "experiment=tune_vae",
        *TINY_VAE,
        "objective.beta_warmup_epochs=0",
        "hydra.sweep.dir=study",
    ]
    original, folders = train_vae, []

    def interrupt_second_call(run, output_dir):
        folders.append(output_dir)
        if len(folders) == 2:
            raise KeyboardInterrupt
        return original(run, output_dir)

    monkeypatch.setattr("vaegan.stages.vae.train_vae", interrupt_second_call)
    assert train(*overrides, "hydra.sweeper.n_trials=2")[0] == 130
    exit_code, out, _ = train(*overrides, "loader.batch_size=512", "hydra.sweeper.n_trials=2")
    failed = ", ".join(folder.name for folder in folders[2:])
    assert exit_code == f"error: 2 of 3 jobs failed: {failed}", out
    study = optuna.load_study(study_name="vae", storage=f"sqlite:///{tmp_path}/study/study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING", "FAIL", "FAIL"]
    finished = read_outcome(folders[0])
    assert study.best_value == finished.value == finished.metrics["val/nll"]


@pytest.mark.slow
@pytest.mark.parametrize("sweeper", ["study", "optuna"])
def test_study_without_a_finished_trial_fails_with_a_clear_error(train, tmp_path, sweeper):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra `sweep`")
    pytest.importorskip("optuna")  # its import warns
    overrides = [f"hydra/sweeper={sweeper}", "hydra.sweeper.n_trials=1", "hydra.sweep.dir=sweep"]
    exit_code, out, _ = train("-m", "stage=compare", "runs=[no_such]", *overrides)
    assert exit_code.startswith("error: every trial of the study failed") and "no_such" in out
    assert "no_such" in read_outcome(tmp_path / "sweep" / "0").error


@pytest.mark.slow
def test_failed_jobs_in_other_processes_are_summarized(train, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="needs the extra `sweep`")
    arguments = [
        "-m",
        "stage=compare",
        "runs=[no_such],[nor_such]",
        "hydra/launcher=processes",
        "hydra.sweep.dir=sweep",
    ]
    exit_code, out, err = train(*arguments)
    assert exit_code == "error: 2 of 2 jobs failed: 0, 1", out + err
    for job, folder in enumerate(["no_such", "nor_such"]):
        assert folder in read_outcome(tmp_path / "sweep" / str(job)).error
    assert "nor_such" in (tmp_path / "sweep" / "summary.md").read_text()


@pytest.mark.slow
def test_jobs_on_several_devices_keep_their_settings_and_mixed_device_counts_are_rejected(
    train, tmp_path
):
    arguments = ["-m", *TINY_VAE, "trainer.accelerator=cpu"]
    run_in_process(
        tmp_path / "log",
        lambda: train(*arguments, "trainer.devices=2", "seed=0,1", "hydra.sweep.dir=sweep"),
    )
    first, second = (read_outcome(tmp_path / "sweep" / job) for job in "01")
    assert (first.config["seed"], second.config["seed"]) == (0, 1) and first.value != second.value
    for job in "01":
        checkpoint = torch.load(
            tmp_path / "sweep" / job / "vae" / "checkpoints" / "last.ckpt", weights_only=True
        )
        assert checkpoint["ImageDataModule"]["world_size"] == 2 and checkpoint["vaegan"]["run"][
            "seed"
        ] == int(job)
    exit_code, out, _ = train(*arguments, "trainer.devices=1,2")
    assert (
        "trainer.devices must be 1 in all jobs of a sweep, or in none" in exit_code
        and "Launching" not in out
    )


def test_sweep_without_jobs_is_rejected(train, tmp_path):
    exit_code, out, _ = train("-m", *TINY_VAE, "seed=range(0)")
    assert exit_code == "error: the sweep has no jobs: a range of values is empty"
    assert "Launching" not in out


def test_sweep_started_by_a_process_launcher_is_rejected(train, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    exit_code, out, _ = train("-m", *TINY_VAE, "seed=0,1")
    assert (
        "set trainer.devices=N to start the processes of each job" in exit_code
        and "Launching" not in out
    )
