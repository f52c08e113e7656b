"""One process for each device: all do the same run together, and a parent watches over them.

Processes that torchrun or SLURM has started are taken as they are. Else they are forks of the parent, which computes
nothing itself, so that a sweep and a pipeline of two stages are commands like any other.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, catch_signals, reset_after_fork
from vaegan.training.trainer_config import DeviceConfig

GRACE = 2.0  # seconds that the others have to say what went wrong when one has ended, before they are killed
GRACE_IN_ORDER = 60.0  # the same when a signal has asked all of them to end
has_computed = False  # whether this process has done a run itself: then threads of its library do not survive a fork


def execute(run: Any, output_dir: Path) -> Any:
    """Do a run, in as many processes as it wants devices; returns what the first of them does.

    Raises:
        ValueError: Processes on several nodes are wanted, but nothing has started them.
        ChildProcessError: A process died.
        Exception: What the first process that failed has raised.
    """
    global has_computed
    config: DeviceConfig | None = run.devices()
    if config is None or is_started_from_outside() or num_processes(run) == 1:
        has_computed = True
        return run.execute(output_dir)
    if config.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={config.num_nodes}: start a process for each device of each node, with torchrun "
            f"--nnodes={config.num_nodes} --nproc-per-node={config.devices} train.py ... or with SLURM's srun"
        )
    if has_computed or torch.cuda.is_initialized():
        raise ValueError(
            "this process has done a run on one device, and can start none on several; use another one"
        )
    return watch(run, output_dir, config.devices)


def num_processes(run: Any) -> int:
    """How many take part in a run."""
    config: DeviceConfig | None = run.devices()
    return 1 if config is None else config.devices * config.num_nodes


def is_started_from_outside() -> bool:
    """Whether torchrun or SLURM has started a process for each device."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def watch(run: Any, output_dir: Path, num: int) -> Any:
    """Start the processes, pass signals on, and end all when one of them has failed."""
    context, port = multiprocessing.get_context("fork"), free_port()
    processes: list[BaseProcess] = []
    tellings: list[Connection] = []
    with catch_signals():
        try:
            for rank in range(num):
                listening, telling = context.Pipe(duplex=False)
                arguments = (rank, num, port, telling, run, output_dir)
                processes.append(context.Process(target=work, args=arguments))
                processes[-1].start()
                telling.close()
                tellings.append(listening)
            told = listen(processes, tellings)
            ends = [process.exitcode for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.join()
    return discriminator_logits(told, ends, output_dir)


def listen(processes: list[BaseProcess], tellings: list[Connection]) -> list[tuple[int, Any]]:
    """What the processes tell at their ends, in the order in which they do: (rank, result or exception)."""
    told: list[tuple[int, Any]] = []
    passed_on, deadline = False, float("inf")
    while not all(telling.closed for telling in tellings) and time.monotonic() < deadline:
        if SIGNAL_STATE.signum and not passed_on:
            passed_on = True
            for process in processes:
                if process.is_alive():
                    os.kill(process.pid or 0, SIGNAL_STATE.signum)
        for ready in wait([telling for telling in tellings if not telling.closed], timeout=0.1):
            assert isinstance(ready, Connection)
            try:
                told.append((tellings.index(ready), ready.recv()))
            except EOFError:
                ready.close()
        has_failed = any(isinstance(what, Exception) for _, what in told)
        has_failed |= any(process.exitcode for process in processes)
        if has_failed and deadline == float("inf"):
            in_order = any(isinstance(what, Interrupted) for _, what in told)
            deadline = time.monotonic() + (GRACE_IN_ORDER if in_order else GRACE)
    return told


def discriminator_logits(
    told: list[tuple[int, Any]], ends: list[int | None], output_dir: Path
) -> Any:
    """The first process's result, or what went wrong first; `ends` are the exit statuses, None of who had not ended."""
    errors = [what for _, what in told if isinstance(what, Exception)]
    lost = [
        error for error in errors if isinstance(error, RuntimeError)
    ]  # that another process does not answer
    died = [
        rank for rank, status in enumerate(ends) if rank not in dict(told) and status is not None
    ]
    if died and len(lost) == len(errors):
        status = ends[died[0]] or 0
        how = (
            f"was ended by {signal.Signals(-status).name}"
            if status < 0
            else f"ended with status {status}"
        )
        raise ChildProcessError(
            f"process {died[0] + 1} of {len(ends)} {how}, and the others with it. The run's checkpoints are whole. "
            f"To go on: python train.py resume={shlex.quote(str(output_dir))}"
        )
    if errors:
        raise errors[0]
    return dict(told)[0]


def work(rank: int, num: int, port: int, telling: Connection, run: Any, output_dir: Path) -> None:
    """What one process does."""
    SIGNAL_STATE.is_worker = True
    reset_after_fork()
    os.environ.pop("SLURM_NTASKS", None)  # what SLURM has started is the parent
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // num))
    if rank:
        logging.getLogger().setLevel(logging.ERROR)
    try:
        with catch_signals():
            told = run.execute(output_dir)
    except Exception as error:
        told = error
        if not isinstance(error, ValueError | OSError | Interrupted):
            error.add_note(f"in process {rank + 1} of {num}:\n{traceback.format_exc()}")
    telling.send(told)
    telling.close()
    sys.stdout.flush()
    os._exit(1 if isinstance(told, Exception) else 0)


def end_with(parent: int) -> None:
    """End this process when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
