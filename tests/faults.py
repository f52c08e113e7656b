"""Runs in separate processes that are killed, stopped and hindered, and comparisons of runs."""

import contextlib
import logging
import multiprocessing.util
import os
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaegan.stages.pipeline  # noqa: F401  what a run would import
from tests.conftest import SMALL_PIPELINE, compose
from vaegan.cli.errors import readable_errors
from vaegan.runtime import launch as launch_module
from vaegan.stages.execute import execute

SMALL = [*SMALL_PIPELINE, "vae.trainer.val_check_interval=0.5", "trainer.enable_progress_bar=false"]
SMALL += ["vae.checkpoint.every_n_images=128", "gan.checkpoint.every_n_images=192"]
TWO = ["trainer.accelerator=cpu", "trainer.devices=2"]


def start(folder, words=()):
    """Start or resume a small pipeline; returns the process, the leader of a new group."""
    return fork(
        f"{folder}.log",
        lambda: execute(compose(*SMALL, *words, "resume=true"), Path(folder)),
    )


def do(path, function):
    """Call a function in a separate process, which writes its output to a file and must exit 0."""
    assert wait(fork(path, function)) == 0, Path(path).read_text()


def fork(path, function):
    """Call a function in another process, as from the command line; returns the process."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a fork of a process with threads: the child uses one alone
        if pid := os.fork():
            return pid
    status = 1
    try:
        torch.set_num_threads(1)
        launch_module.has_computed = False  # no threads that a fork could miss
        # As multiprocessing's own Process does: the threads of the parent do not exist here.
        multiprocessing.util._run_after_forkers()
        os.setpgid(0, 0)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_DFL)
        with readable_errors():
            function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        print(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def wait(pid, seconds=60.0):
    """Exit status of a process as a shell tells it, or None if it has not ended in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return (
                os.waitstatus_to_exitcode(status)
                if os.WIFEXITED(status)
                else 128 + os.WTERMSIG(status)
            )
        time.sleep(0.002)
    return None


def finish(folder, words=()):
    """Run to the end."""
    pid = start(folder, words)
    status = wait(pid)
    if status is None:
        kill(pid)
    assert status == 0, log(folder)
    return folder


def kill(pid):
    """End a run and all its processes, with no warning."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def until(condition, seconds=60.0):
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def log(folder):
    """All that a run has said."""
    return Path(f"{folder}.log").read_text()


def saved(folder, stage="vae"):
    """Checkpoints that a stage could resume from, the oldest first."""
    return sorted((folder / stage / "checkpoints").glob("[0-9]*.ckpt"))


def children(pid):
    """Processes that a process has started."""
    with contextlib.suppress(FileNotFoundError):
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    return []


def find_differences(a, b, where=""):
    """Where two values differ, tensors bit for bit; paths do not count."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        keys = [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"] if a.keys() != b.keys() else []
        return keys + [
            found
            for key in a.keys() & b.keys()
            for found in find_differences(a[key], b[key], f"{where}.{key}")
        ]
    if isinstance(a, list | tuple) and len(a) == len(b):
        return [
            found
            for i, pair in enumerate(zip(a, b, strict=True))
            for found in find_differences(*pair, f"{where}[{i}]")
        ]
    return [] if a == b or isinstance(a, str) and "/" in a else [f"{where}: {a} {b}"]


def checkpoint(path):
    """What a checkpoint holds that must be the same, whenever the run was killed."""
    content = torch.load(path, weights_only=True)
    content["callbacks"]["ResumeCheckpoints"].pop(
        "logs"
    )  # event files have as many parts as a run had starts
    loops = content["loops"][
        "fit_loop"
    ].items()  # Lightning's count of validation batches is for its bar alone
    content["loops"] = {name: state for name, state in loops if "val_loop" not in name}
    for name, state in content["callbacks"].items():
        if name.startswith("BestCheckpoint"):
            content["callbacks"][name] = state["best_model_score"]
    return content


def curves(folder):
    """All that TensorBoard shows of a stage, but for the time of day."""
    events = EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    scalars = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    images = {
        tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)]
        for tag in events.Tags()["images"]
    }
    return scalars | images


def files(folder):
    """The other files of a stage, by name."""
    paths = [*folder.rglob("*.png"), *folder.glob("*.csv"), folder / "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_same(one, other, stages=("vae", "gan")):
    """Two runs left the same: weights, optimizers, counters, curves, tables, images, results."""
    for stage in stages:
        for name in ("best", "last"):
            pair = [
                checkpoint(run / stage / "checkpoints" / f"{name}.ckpt") for run in (one, other)
            ]
            assert not find_differences(*pair, f"{stage}/{name}")
        assert not find_differences(curves(one / stage), curves(other / stage), stage)
        assert files(one / stage) == files(other / stage)
