"""Runs that are killed, in processes of their own: `python -m tests.faults FOLDER SEED NUM_KILLS WORD...`.

All are forks of one process that has imported everything and computed nothing: to start one costs no time.
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vaegan.stages.pipeline  # noqa: F401  what a run would import
from tests.conftest import SMALL_PIPELINE, compose
from vaegan.launching import execute

SMALL = [*SMALL_PIPELINE, "vae.trainer.val_check_interval=0.5"]
SMALL += [f"{stage}.trainer.enable_progress_bar=false" for stage in ("vae", "gan")]
SMALL += ["vae.checkpoint.every_n_images=128", "gan.checkpoint.every_n_images=192"]


def start(folder, words):
    """Begin a run, or go on with it; returns the process."""
    if pid := os.fork():
        return pid
    try:
        log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        os.setpgid(0, 0)  # whatever it starts is killed with it
        execute(compose(*words, "resume=true"), Path(folder))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(folder, words, seconds=None):
    """Run until it ends, or for so long and then kill it; returns whether it was killed."""
    pid, deadline = start(folder, words), time.monotonic() + (seconds or 300)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, Path(f"{folder}.log").read_text()
            return False
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert seconds, f"{folder}.log: it hangs"
    return True


def kill_and_go_on(folder, seed, num_kills, words):
    """One run that is left alone, folder/calm, and others that are killed and gone on with until they end."""
    begun = time.monotonic()
    finish(folder / "calm", words)
    total, rng, run = time.monotonic() - begun, random.Random(seed), 0
    for _ in range(num_kills):
        run += not finish(folder / f"killed{run}", words, rng.uniform(0.05, 0.95) * total)
    finish(folder / f"killed{run}", words)


def differences(a, b, where=""):
    """Where two values differ, tensors bit for bit; paths do not count."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    if isinstance(a, dict):
        keys = [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"] if a.keys() != b.keys() else []
        return keys + [found for key in a.keys() & b.keys() for found in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, list | tuple) and len(a) == len(b):
        return [found for i, pair in enumerate(zip(a, b, strict=True)) for found in differences(*pair, f"{where}[{i}]")]
    return [] if a == b or isinstance(a, str) and "/" in a else [f"{where}: {a} {b}"]


def checkpoint(path):
    """What a checkpoint holds that must be the same, whenever the run was killed."""
    content = torch.load(path, weights_only=True)
    content["callbacks"]["Recovery"].pop("logs")  # event files have as many parts as a run had starts
    loops = content["loops"]["fit_loop"].items()  # Lightning's count of validation batches is for its bar alone
    content["loops"] = {name: state for name, state in loops if "val_loop" not in name}
    for name, state in content["callbacks"].items():
        if name.startswith("BestCheckpoint"):
            content["callbacks"][name] = state["best_model_score"]
    return content


def curves(folder):
    """All that TensorBoard shows of a stage, but for the time of day."""
    events = EventAccumulator(str(folder), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    images = {tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in events.Tags()["images"]}
    return scalars | images


def files(folder):
    """The other files of a stage, by name."""
    paths = [*folder.rglob("*.png"), *folder.glob("*.csv"), folder / "result.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def assert_same(one, other, stages=("vae", "gan")):
    """Two runs left the same: weights, optimizers, counters, curves, tables, pictures, results."""
    for stage in stages:
        for name in ("best", "last"):
            pair = [checkpoint(run / stage / "checkpoints" / f"{name}.ckpt") for run in (one, other)]
            assert not differences(*pair, f"{stage}/{name}")
        assert not differences(curves(one / stage), curves(other / stage), stage)
        assert files(one / stage) == files(other / stage)


if __name__ == "__main__":
    root, seed, num_kills, *words = sys.argv[1:]
    kill_and_go_on(Path(root), int(seed), int(num_kills), [*SMALL, *words])
