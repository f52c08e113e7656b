"""Helpers to start runs in separate processes, to interrupt them, and to compare their results."""

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
from hydra.core.global_hydra import GlobalHydra
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaegan.stages.pipeline  # noqa: F401  imported once here instead of in each fork
from tests.conftest import SMALL_PIPELINE, SMALL_VAE, compose
from vaegan.cli.errors import readable_errors
from vaegan.cli.main import main
from vaegan.runtime import launch as launch_module
from vaegan.stages.execute import execute

SMALL = [*SMALL_PIPELINE, "vae.trainer.val_check_interval=0.5", "trainer.enable_progress_bar=false"]
SMALL += ["vae.checkpoint.every_n_images=128", "gan.checkpoint.every_n_images=192"]
SMALL_STAGE = [*SMALL_VAE, "trainer.val_check_interval=0.5", "checkpoint.every_n_images=128"]
TWO_PROCESSES = ["trainer.accelerator=cpu", "trainer.devices=2"]


def start_run(folder, words=(), small=SMALL):
    """Start or resume a small pipeline, or another small run; return its process id.

    The process leads a new process group.
    """
    run = compose(*small, *words, "resume=true")
    return fork(f"{folder}.log", lambda: execute(run, Path(folder)))


def run_in_process(path, function):
    """Call a function in a separate process with output to a file; its exit status must be 0."""
    assert wait(fork(path, function), seconds=300) == 0, Path(path).read_text()


def run_command_line(path, folder, words):
    """Run train.py in a folder, in a separate process with output to a file."""

    def run():
        os.chdir(folder)
        sys.argv = ["train.py", *words]
        GlobalHydra.instance().clear()
        main()

    run_in_process(path, run)


def fork(path, function):
    """Call a function in a forked process as the command line would; return the process id."""
    with warnings.catch_warnings():
        # Python warns about a fork of a multi-threaded process; the child uses only one thread.
        warnings.simplefilter("ignore")
        if pid := os.fork():
            return pid
    status = 1
    try:
        torch.set_num_threads(1)
        launch_module.has_computed = False  # the child has no threads that a fork would lose
        # As in multiprocessing.Process: the threads of the parent do not exist in the child.
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
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
        print(error.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def wait(pid, seconds=60.0):
    """Return the exit status of a process as in a shell, or None after a timeout."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        exited_pid, status = os.waitpid(pid, os.WNOHANG)
        if exited_pid:
            if os.WIFEXITED(status):
                return os.waitstatus_to_exitcode(status)
            return 128 + os.WTERMSIG(status)
        time.sleep(0.01)
    return None


def run_to_end(folder, words=(), small=SMALL):
    """Start or resume a run and wait for it; return its folder."""
    pid = start_run(folder, words, small)
    status = wait(pid)
    if status is None:
        kill(pid)
    assert status == 0, read_log(folder)
    return folder


def kill(pid):
    """Kill a run and all its processes with SIGKILL."""
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def wait_until(condition, seconds=60.0):
    """Wait until a condition is true; fail after a timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def read_log(folder):
    """Return the output of a run."""
    return Path(f"{folder}.log").read_text()


def resume_checkpoints(folder, stage="vae"):
    """Return the resume checkpoints of a stage, oldest first."""
    return sorted((folder / stage / "checkpoints").glob("[0-9]*.ckpt"))


def child_pids(pid):
    """Return the ids of the child processes of a process."""
    with contextlib.suppress(FileNotFoundError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []


def find_differences(a, b, name=""):
    """Return the names of nested values that differ; tensors bit for bit, paths are ignored."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [name]
    differences = []
    if isinstance(a, dict):
        if a.keys() != b.keys():
            differences.append(f"{name}: {sorted(map(str, a.keys() ^ b.keys()))}")
        for key in a.keys() & b.keys():
            differences += find_differences(a[key], b[key], f"{name}.{key}")
        return differences
    if isinstance(a, list | tuple) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            differences += find_differences(*pair, f"{name}[{i}]")
        return differences
    is_path = isinstance(a, str) and "/" in a
    return [] if a == b or is_path else [f"{name}: {a} {b}"]


def load_comparable(path):
    """Load the part of a checkpoint that must not depend on interruptions of the run."""
    content = torch.load(path, weights_only=True)
    # Each start of a run writes a new event file.
    content["callbacks"]["ResumeCheckpoints"].pop("logs")
    # Lightning uses its count of validation batches only for the progress bar.
    loops = content["loops"]["fit_loop"].items()
    content["loops"] = {name: state for name, state in loops if "val_loop" not in name}
    for name, state in content["callbacks"].items():
        if name.startswith("BestCheckpoint"):
            content["callbacks"][name] = state["best_model_score"]
    return content


def load_events(folder):
    """Load the scalars and images in the TensorBoard files of a stage, without wall times."""
    events = EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    scalars = {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    images = {
        tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)]
        for tag in events.Tags()["images"]
    }
    return scalars | images


def output_files(folder):
    """Return the content of the images, CSV files and result.json of a stage by file name."""
    paths = [*folder.rglob("*.png"), *folder.glob("*.csv"), folder / "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_same_runs(one, other, stages=("vae", "gan")):
    """Check that two runs have the same checkpoints, curves, tables, images and results."""
    for stage in stages:
        for name in ("best", "last"):
            paths = [run / stage / "checkpoints" / f"{name}.ckpt" for run in (one, other)]
            checkpoints = [load_comparable(path) for path in paths]
            assert not find_differences(*checkpoints, f"{stage}/{name}")
        assert not find_differences(load_events(one / stage), load_events(other / stage), stage)
        assert output_files(one / stage) == output_files(other / stage)
