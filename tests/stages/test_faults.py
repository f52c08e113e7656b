"""A small pipeline under faults: it must leave what an undisturbed one leaves, bit for bit."""

import os
import random
import resource
import signal
import time

import pytest
import torch

from tests.conftest import compose
from tests.faults import (
    SMALL,
    TWO,
    assert_same,
    children,
    finish,
    fork,
    kill,
    log,
    saved,
    start,
    until,
    wait,
)
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import run_stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Folder of an undisturbed run."""
    return finish(tmp_path_factory.mktemp("calm") / "run")


@pytest.fixture(scope="module")
def calm_two(tmp_path_factory):
    """Folder of an undisturbed run in two processes."""
    return finish(tmp_path_factory.mktemp("calm") / "run", TWO)


def kill_and_go_on(folder, num_kills, words):
    """Kill runs at random moments and resume each; return their folders, a calm one first."""
    begun = time.monotonic()
    finish(folder / "first", words)
    total, rng, runs = time.monotonic() - begun, random.Random(0), [folder / "first", folder / "1"]
    for _ in range(num_kills):
        pid = start(runs[-1], words)
        if wait(pid, rng.uniform(0.05, 0.95) * total) is None:
            kill(pid)
        else:
            runs.append(folder / str(len(runs)))
    finish(runs[-1], words)
    return runs


@pytest.mark.parametrize(
    "num_kills, words",
    [(20, []), (4, ["vae.loader.num_workers=2", "gan.loader.num_workers=2"]), (4, TWO)],
    ids=["alone", "2 workers", "2 processes"],
)
def test_a_run_that_is_killed_goes_on_as_if_it_never_had_been(tmp_path, num_kills, words):
    undisturbed, *runs = kill_and_go_on(tmp_path, num_kills, words)
    for run in runs:
        assert "error:" not in log(run)
        assert_same(undisturbed, run)


def assert_close(one, two, stage):
    """The weights of two runs are the same up to float error."""
    paths = [run / stage / "checkpoints" / "last.ckpt" for run in (one, two)]
    first, second = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    for key, value in first.items():
        assert torch.allclose(second[key], value, rtol=0, atol=3e-4), key


def test_two_processes_train_both_stages_to_the_weights_of_one(calm, calm_two):
    for stage in ("vae", "gan"):
        assert_close(calm, calm_two, stage)
        tables = [
            (run / stage / "metrics.csv").read_text().splitlines() for run in (calm, calm_two)
        ]
        assert len(tables[0]) == len(tables[1])


def test_what_is_nonlinear_in_the_batch_is_of_the_whole_batch(tmp_path):
    words = [
        "objective.free_bits=0.1",
        "likelihood=gaussian",
        "likelihood.scale=optimal",
        "gan.trainer.max_epochs=1",
    ]
    one, two = finish(tmp_path / "one", words), finish(tmp_path / "two", [*words, *TWO])
    assert_close(one, two, "vae")


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda signum: signum.name
)
def test_a_signal_ends_a_run_in_order(calm, tmp_path, signum):
    run = tmp_path / "run"
    pid = start(run)
    until(lambda: saved(run))
    os.kill(pid, signum)
    assert wait(pid) == 128 + signum
    assert f"python train.py resume={run}" in log(run)
    assert signum.name in log(run) and "Traceback" not in log(run)
    assert_same(calm, finish(run))


@pytest.mark.parametrize(
    "whom, signum",
    [
        ("parent", signal.SIGTERM),
        ("one", signal.SIGTERM),
        ("all", signal.SIGTERM),
        ("all", signal.SIGINT),
        ("parent", signal.SIGUSR1),
        ("one", signal.SIGUSR1),
    ],
)
def test_a_signal_ends_all_processes_in_order_whoever_gets_it(calm_two, tmp_path, whom, signum):
    run = tmp_path / "run"
    pid = start(run, TWO)
    until(lambda: saved(run))
    for process in {"parent": [pid], "one": children(pid)[1:], "all": [pid, *children(pid)]}[whom]:
        os.kill(process, signum)
    assert wait(pid) == 128 + signum, log(run)
    assert f"python train.py resume={run}" in log(run)
    assert_same(calm_two, finish(run, TWO))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_a_signal_to_all_leaves_the_loaders_processes_at_work(tmp_path, signum):
    words = [
        "vae.loader.num_workers=2",
        "vae.trainer.max_epochs=500",
        "vae.early_stopping_patience=null",
    ]
    run = tmp_path / "run"
    pid = start(run, words)
    until(lambda: saved(run))
    os.killpg(pid, signum)
    assert wait(pid) == 128 + signum, log(run)
    assert saved(run) and f"python train.py resume={run}" in log(run)


def test_a_second_interrupt_ends_a_run_at_once(tmp_path):
    run = tmp_path / "run"
    pid = start(run, ["vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"])
    until(lambda: saved(run))
    os.kill(pid, signal.SIGSTOP)  # so that both signals are there before it can end in order
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGCONT)
    until(lambda: "SIGINT" in log(run))
    os.kill(pid, signal.SIGINT)
    assert wait(pid, 5) == 130


def test_a_process_that_dies_ends_the_others(calm_two, tmp_path):
    run = tmp_path / "run"
    pid = start(run, TWO)
    until(lambda: saved(run))
    os.kill(children(pid)[1], signal.SIGKILL)
    assert wait(pid, 10) == 1
    assert "process 2 of 2 was ended by SIGKILL" in log(run) and "Traceback" not in log(run)
    assert_same(calm_two, finish(run, TWO))


def test_processes_end_with_their_parent(tmp_path):
    run = tmp_path / "run"
    pid = start(run, [*TWO, "vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"])
    until(lambda: saved(run))
    others = children(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: not any(os.path.exists(f"/proc/{process}/fd/0") for process in others), 10)


def test_a_full_disk_ends_a_run_and_leaves_what_was_there(calm, tmp_path):
    run = tmp_path / "run"
    pid = start(run)
    until(lambda: saved(run))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, 1000))  # no file can get longer
    assert wait(pid) == 1
    assert "File too large" in log(run) and f"python train.py resume={run}" in log(run)
    assert not list(run.rglob("*.partial"))
    assert_same(calm, finish(run))


def test_a_folder_that_is_gone_ends_a_run(tmp_path):
    run = tmp_path / "run"
    pid = start(run, ["vae.trainer.max_epochs=500", "vae.early_stopping_patience=null"])
    until(lambda: saved(run))
    (run / "vae").rename(run / "gone")
    assert wait(pid) == 1
    assert "No such file or directory" in log(run) and "Traceback" not in log(run)


@pytest.fixture(scope="module")
def calm_longer(tmp_path_factory):
    """Folder of an undisturbed run with a longer first stage."""
    return finish(tmp_path_factory.mktemp("calm") / "run", ["vae.trainer.max_epochs=8"])


def stopped(run):
    """Checkpoints of a run that has ended in order, two of them at least."""
    pid = start(run, ["vae.trainer.max_epochs=8"])
    until(lambda: len(saved(run)) == 2)
    os.kill(pid, signal.SIGTERM)
    assert wait(pid) == 143
    return saved(run)


def damage(path, how):
    """Make a checkpoint what a crash, a full disk or a bad one may leave of it."""
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(
        {"empty": b"", "cut short": content[: len(content) // 3], "flipped": content}[how]
    )


@pytest.mark.parametrize("how", ["empty", "cut short", "flipped"])
def test_a_broken_checkpoint_is_passed_over(calm_longer, tmp_path, how):
    run = tmp_path / "run"
    newest = stopped(run)[-1]
    damage(newest, how)
    finish(run, ["vae.trainer.max_epochs=8"])
    assert f"{newest} is" in log(run) and "the checkpoint before it is used" in log(run)
    assert {path.name for path in newest.parent.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert_same(calm_longer, run)


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(tmp_path):
    run = tmp_path / "run"
    for path in stopped(run):
        damage(path, "empty")
    assert wait(start(run, ["vae.trainer.max_epochs=8"])) == 1
    assert "no checkpoint in" in log(run)
    assert "is intact; start again in another hydra.run.dir" in log(run)


def test_two_runs_never_write_to_one_folder(tmp_path):
    run = tmp_path / "run"
    pid = start(run, ["vae.trainer.max_epochs=500"])
    until(lambda: (run / "config.json").exists())
    with pytest.raises(
        ValueError, match="another run is writing to .*; wait for it, or set hydra.run.dir"
    ):
        run_stage(compose(*SMALL, "resume=true"), run)
    kill(pid)


def test_an_evaluation_in_two_processes_ends_when_a_signal_comes(calm, tmp_path):
    words = [
        "stage=evaluate",
        f"ckpt={calm}",
        "num_samples=2000",
        "batch_size=1",
        "chunk_size=1",
        *TWO,
    ]
    words.append("trainer.enable_progress_bar=false")
    pid = fork(tmp_path / "log", lambda: execute(compose(*words), tmp_path / "run"))
    until(lambda: (tmp_path / "run" / "evaluate").exists() and len(children(pid)) == 2)
    os.kill(pid, signal.SIGTERM)
    assert wait(pid, 20) == 143
