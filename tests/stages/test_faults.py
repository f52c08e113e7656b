"""Fault tolerance: an interrupted pipeline gives the same results as an uninterrupted one."""

import os
import random
import resource
import signal
import time

import pytest
import torch
from torch.utils.data import get_worker_info

from tests.conftest import compose
from tests.faults import (
    SMALL,
    SMALL_STAGE,
    TWO_PROCESSES,
    assert_same_runs,
    child_pids,
    fork,
    kill,
    read_log,
    resume_checkpoints,
    run_to_end,
    start_run,
    wait,
    wait_until,
)
from vaegan.data.crops import ImageDataset
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

pytestmark = pytest.mark.slow
LONGER = ["trainer.max_epochs=5"]
AGGREGATE = "gan.warm_start.aggregate_posterior=true"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the folder of an uninterrupted run."""
    return run_to_end(tmp_path_factory.mktemp("reference") / "run")


@pytest.fixture(scope="module")
def reference_two(tmp_path_factory):
    """Return the folder of an uninterrupted run in two processes."""
    return run_to_end(tmp_path_factory.mktemp("reference") / "run", TWO_PROCESSES)


@pytest.fixture(scope="module")
def vae_reference(tmp_path_factory):
    """Return the folder of an uninterrupted run of the first stage."""
    return run_to_end(tmp_path_factory.mktemp("reference") / "run", [], SMALL_STAGE)


@pytest.fixture(scope="module")
def vae_reference_two(tmp_path_factory):
    """Return the folder of an uninterrupted run of the first stage in two processes."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return run_to_end(folder, TWO_PROCESSES, SMALL_STAGE)


def kill_and_resume(folder, num_kills, overrides):
    """Kill runs at random times and resume them; return their folders, a reference run first."""
    start = time.monotonic()
    run_to_end(folder / "first", overrides)
    total = time.monotonic() - start
    rng, runs = random.Random(0), [folder / "first", folder / "1"]
    for _ in range(num_kills):
        pid = start_run(runs[-1], overrides)
        if wait(pid, rng.uniform(0.05, 0.95) * total) is None:
            kill(pid)
        else:
            runs.append(folder / str(len(runs)))
    run_to_end(runs[-1], overrides)
    return runs


@pytest.mark.parametrize(
    "num_kills, overrides",
    [
        (5, []),
        (3, ["vae.loader.num_workers=2", "gan.loader.num_workers=2", AGGREGATE]),
        (3, [*TWO_PROCESSES, AGGREGATE]),
    ],
    ids=["1 process", "2 workers", "2 processes"],
)
def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, num_kills, overrides):
    uninterrupted, *runs = kill_and_resume(tmp_path, num_kills, overrides)
    for run in runs:
        assert "error:" not in read_log(run)
        assert_same_runs(uninterrupted, run)


def assert_close(one, two, stage):
    """Check that the weights of two runs are equal up to float error."""
    paths = [run / stage / "checkpoints" / "last.ckpt" for run in (one, two)]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    for key, value in first.items():
        assert torch.allclose(second[key], value, rtol=0, atol=3e-4), key


def test_two_processes_train_to_the_weights_of_one(reference, reference_two):
    for stage in ("vae", "gan"):
        assert_close(reference, reference_two, stage)
        tables = [
            (run / stage / "metrics.csv").read_text().splitlines()
            for run in (reference, reference_two)
        ]
        assert len(tables[0]) == len(tables[1])


def test_nonlinear_batch_statistics_cover_all_processes(tmp_path):
    overrides = ["objective.free_bits=0.1", "likelihood=gaussian", "likelihood.scale=optimal"]
    one, two = (
        run_to_end(tmp_path / "one", overrides, SMALL_STAGE),
        run_to_end(tmp_path / "two", [*overrides, *TWO_PROCESSES], SMALL_STAGE),
    )
    assert_close(one, two, "vae")


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda signum: signum.name
)
def test_signal_stops_a_run_gracefully(vae_reference, tmp_path, signum):
    run = tmp_path / "run"
    pid = start_run(run, [], SMALL_STAGE)
    wait_until(lambda: resume_checkpoints(run))
    os.kill(pid, signum)
    assert wait(pid) == 128 + signum
    assert f"python train.py resume={run}" in read_log(run)
    assert signum.name in read_log(run) and "Traceback" not in read_log(run)
    assert_same_runs(vae_reference, run_to_end(run, [], SMALL_STAGE), ["vae"])


@pytest.mark.parametrize(
    "target, signum",
    [
        ("parent", signal.SIGTERM),
        ("one", signal.SIGTERM),
        ("all", signal.SIGINT),
        ("one", signal.SIGUSR1),
    ],
)
def test_signal_to_any_process_stops_all_gracefully(vae_reference_two, tmp_path, target, signum):
    run = tmp_path / "run"
    pid = start_run(run, TWO_PROCESSES, SMALL_STAGE)
    wait_until(lambda: resume_checkpoints(run))
    children = child_pids(pid)
    for process in {"parent": [pid], "one": children[1:], "all": [pid, *children]}[target]:
        os.kill(process, signum)
    assert wait(pid) == 128 + signum, read_log(run)
    assert f"python train.py resume={run}" in read_log(run)
    run_to_end(run, TWO_PROCESSES, SMALL_STAGE)
    assert_same_runs(vae_reference_two, run, ["vae"])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_signal_to_the_process_group_does_not_stop_loader_workers(tmp_path, signum):
    overrides = [
        "vae.loader.num_workers=2",
        "vae.trainer.max_epochs=500",
        "vae.early_stopping_patience=null",
    ]
    run = tmp_path / "run"
    pid = start_run(run, overrides)
    wait_until(lambda: resume_checkpoints(run))
    os.killpg(pid, signum)
    assert wait(pid) == 128 + signum, read_log(run)
    assert resume_checkpoints(run) and f"python train.py resume={run}" in read_log(run)


def test_second_interrupt_aborts_a_run(tmp_path):
    run = tmp_path / "run"
    pid = start_run(run, ["vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"])
    wait_until(lambda: resume_checkpoints(run))
    os.kill(pid, signal.SIGSTOP)  # so that it cannot stop gracefully before the second signal
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: "SIGINT" in read_log(run))
    os.kill(pid, signal.SIGINT)
    assert wait(pid, 5) == 130


def test_killed_process_stops_the_others(vae_reference_two, tmp_path):
    run = tmp_path / "run"
    pid = start_run(run, TWO_PROCESSES, SMALL_STAGE)
    wait_until(lambda: resume_checkpoints(run))
    os.kill(child_pids(pid)[1], signal.SIGKILL)
    assert wait(pid, 10) == 1
    log = read_log(run)
    assert "process 2 of 2 was killed by SIGKILL" in log and "Traceback" not in log
    run_to_end(run, TWO_PROCESSES, SMALL_STAGE)
    assert_same_runs(vae_reference_two, run, ["vae"])


def test_processes_exit_with_their_parent(tmp_path):
    run = tmp_path / "run"
    pid = start_run(
        run, [*TWO_PROCESSES, "vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"]
    )
    wait_until(lambda: resume_checkpoints(run))
    others = child_pids(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    wait_until(lambda: not any(os.path.exists(f"/proc/{process}/fd/0") for process in others), 10)


def test_full_disk_stops_a_run_and_keeps_its_checkpoints(reference, tmp_path):
    run = tmp_path / "run"
    pid = start_run(run)
    wait_until(lambda: resume_checkpoints(run))
    limit = 10_000  # bytes per file: enough for the log, too few for a checkpoint
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))
    assert wait(pid) == 1
    assert "File too large" in read_log(run) and f"python train.py resume={run}" in read_log(run)
    assert not list(run.rglob("*.partial"))
    assert_same_runs(reference, run_to_end(run))


def test_moved_run_folder_stops_a_run(tmp_path):
    run = tmp_path / "run"
    pid = start_run(run, ["vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"])
    wait_until(lambda: resume_checkpoints(run))
    (run / "vae").rename(run / "gone")
    assert wait(pid) == 1
    assert "No such file or directory" in read_log(run) and "Traceback" not in read_log(run)


@pytest.fixture(scope="module")
def long_reference(tmp_path_factory):
    """Return the folder of an uninterrupted run of the first stage with more epochs."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    return run_to_end(folder, LONGER, SMALL_STAGE)


def stop_gracefully(run):
    """Start a run and stop it after two resume checkpoints; return the checkpoints."""
    pid = start_run(run, LONGER, SMALL_STAGE)
    wait_until(lambda: len(resume_checkpoints(run)) == 2)
    os.kill(pid, signal.SIGTERM)
    assert wait(pid) == 143
    return resume_checkpoints(run)


def damage(path, kind):
    """Damage a checkpoint as a crash, a full disk or a failing disk could."""
    content = bytearray(path.read_bytes())
    if kind == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(
        {"empty": b"", "truncated": content[: len(content) // 3], "flipped": content}[kind]
    )


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped"])
def test_damaged_checkpoint_is_skipped(long_reference, tmp_path, kind):
    run = tmp_path / "run"
    newest = stop_gracefully(run)[-1]
    damage(newest, kind)
    run_to_end(run, LONGER, SMALL_STAGE)
    assert f"{newest} is" in read_log(run) and "trying the previous checkpoint" in read_log(run)
    assert {path.name for path in newest.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert_same_runs(long_reference, run, ["vae"])


def test_run_without_an_intact_checkpoint_is_not_restarted(tmp_path):
    run = tmp_path / "run"
    for path in stop_gracefully(run):
        damage(path, "empty")
    assert wait(start_run(run, LONGER, SMALL_STAGE)) == 1
    assert "no checkpoint in" in read_log(run)
    assert "is intact; start a new run with hydra.run.dir set to" in read_log(run)


def test_two_runs_cannot_write_to_one_folder(tmp_path):
    run = tmp_path / "run"
    pid = start_run(run, ["vae.trainer.max_epochs=500"])
    wait_until(lambda: (run / "config.json").exists())
    with pytest.raises(
        ValueError, match="another run is writing to .*; wait until it ends, or set hydra.run.dir"
    ):
        run_stage(compose(*SMALL, "resume=true"), run)
    kill(pid)


def test_signal_stops_an_evaluation_in_two_processes(reference, tmp_path):
    overrides = [
        "stage=evaluate",
        f"ckpt={reference}",
        "num_samples=2000",
        "batch_size=1",
        "chunk_size=1",
        *TWO_PROCESSES,
    ]
    overrides.append("trainer.enable_progress_bar=false")
    pid = fork(tmp_path / "log", lambda: execute(compose(*overrides), tmp_path / "run"))
    wait_until(lambda: (tmp_path / "run" / "evaluate").exists() and len(child_pids(pid)) == 2)
    os.kill(pid, signal.SIGTERM)
    assert wait(pid, 20) == 143


def test_signal_stops_a_run_whose_loader_process_hangs(tmp_path, monkeypatch):
    original = ImageDataset.__getitem__

    def load_or_hang(self, batch):
        if get_worker_info() and (tmp_path / "hang").exists():
            time.sleep(1000)
        return original(self, batch)

    monkeypatch.setattr(ImageDataset, "__getitem__", load_or_hang)
    monkeypatch.setattr("vaegan.data.loader_processes.SECONDS_AFTER_SIGNAL", 1.0)
    run = tmp_path / "run"
    words = ["vae.loader.num_workers=1", "vae.trainer.max_epochs=500"]
    pid = start_run(run, [*words, "vae.early_stopping_patience=null"])
    wait_until(lambda: resume_checkpoints(run))
    (tmp_path / "hang").touch()
    time.sleep(0.5)
    os.kill(pid, signal.SIGTERM)
    assert wait(pid, 25) == 143, read_log(run)  # at once in training, later in a validation
    assert f"python train.py resume={run}" in read_log(run)
