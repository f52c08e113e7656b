"""Run a function in one process per device, supervised by a parent process.

Processes started by torchrun or SLURM are used as they are. Otherwise, the parent forks one worker
per device and computes nothing itself. Sweeps and pipelines of several stages can use several
devices too.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from vaegan.runtime.signals import (
    SIGNAL_STATE,
    Interrupted,
    catch_signals,
    deferred_signals,
    reset_after_fork,
)

SECONDS_TO_REPORT = 2.0  # time for other workers to report their errors after one has failed
SECONDS_TO_SAVE = 60.0  # time for other workers to save and stop after a signal
SECONDS_TO_FORWARD = 1.0  # time until a signal is sent again to a worker that may have missed it
has_computed = False  # True after a run in this process, as its threads would not survive a fork


def launch(
    function: Callable[[], Any], num_devices: int, num_nodes: int, resume_command: str
) -> Any:
    """Call a function in one process per device and return the result of rank 0.

    Args:
        function: Called in each process. It is inherited by fork, so it need not be picklable.
        num_devices: Devices per node.
        num_nodes: Number of nodes.
        resume_command: Command to show in the error message if a process dies.

    Raises:
        ValueError: Several nodes are requested without torchrun or SLURM, or this process has
            already run on one device.
        ChildProcessError: A process died.
        Exception: The first exception raised by a worker.
    """
    global has_computed
    if num_devices * num_nodes == 1 or is_launched_externally():
        has_computed = True
        return function()
    if num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={num_nodes}: start one process per device on each node, with "
            f"torchrun --nnodes={num_nodes} --nproc-per-node={num_devices} train.py ... "
            "or with SLURM's srun"
        )
    if has_computed or torch.cuda.is_initialized():
        raise ValueError(
            "this process has already run on one device and cannot start workers for several; "
            "use a new process"
        )
    return supervise(function, num_devices, resume_command)


def is_launched_externally() -> bool:
    """True if torchrun or SLURM has started one process per device."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def supervise(function: Callable[[], Any], num_workers: int, resume_command: str) -> Any:
    """Start the workers, forward signals to them, and stop all workers if one fails.

    Returns:
        Result of rank 0.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError(
            f"trainer.devices={num_workers}: this system cannot fork processes. Start one process "
            f"per device with: torchrun --nproc-per-node={num_workers} train.py ..."
        )
    context = multiprocessing.get_context("fork")
    port = find_free_port()
    workers: list[BaseProcess] = []
    receivers: list[Connection] = []
    with catch_signals(), deferred_signals():
        try:
            for rank in range(num_workers):
                receiver, sender = context.Pipe(duplex=False)
                arguments = (function, rank, num_workers, port, sender)
                workers.append(context.Process(target=worker_main, args=arguments))
                receivers.append(receiver)
                workers[-1].start()
                sender.close()
            messages = collect_results(workers, receivers)
            exit_codes = [worker.exitcode for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
    raise_first_error(messages, exit_codes, resume_command)
    return messages[0]


def collect_results(
    workers: Sequence[BaseProcess], receivers: Sequence[Connection]
) -> dict[int, Any]:
    """Return the result or exception of each worker by rank, in order of arrival.

    A worker that dies sends nothing. After a failure, the other workers get a short deadline.
    """
    messages: dict[int, Any] = {}
    next_forward = time.monotonic()
    deadline = float("inf")
    while not all(receiver.closed for receiver in receivers) and time.monotonic() < deadline:
        signum = signum_to_forward(messages)
        if signum and time.monotonic() >= next_forward:
            next_forward = time.monotonic() + SECONDS_TO_FORWARD
            for worker in workers:
                if worker.is_alive():
                    os.kill(worker.pid or 0, signum)
        open_receivers = [receiver for receiver in receivers if not receiver.closed]
        for ready in wait(open_receivers, timeout=0.1):
            assert isinstance(ready, Connection)
            try:
                messages[receivers.index(ready)] = ready.recv()
            except EOFError:
                ready.close()
        errors = select_errors(messages)
        has_failed = bool(errors) or any(worker.exitcode for worker in workers)
        if has_failed and deadline == float("inf"):
            is_interrupted = any(isinstance(error, Interrupted) for error in errors)
            deadline = time.monotonic() + (SECONDS_TO_SAVE if is_interrupted else SECONDS_TO_REPORT)
    return messages


def signum_to_forward(messages: dict[int, Any]) -> int:
    """Return the signal that this process or one of the workers has received; 0 if none."""
    stopped = [error.signum for error in messages.values() if isinstance(error, Interrupted)]
    return SIGNAL_STATE.signum or next(iter(stopped), 0)


def select_errors(messages: dict[int, Any]) -> list[BaseException]:
    """Return the errors of the workers in order of arrival, but `Interrupted` first."""
    errors = [message for message in messages.values() if isinstance(message, BaseException)]
    return sorted(errors, key=lambda error: not isinstance(error, Interrupted))


def raise_first_error(
    messages: dict[int, Any], exit_codes: Sequence[int | None], resume_command: str
) -> None:
    """Raise the first error, if any. The exit code of a running worker is None."""
    errors = select_errors(messages)
    silent = [rank for rank in range(len(exit_codes)) if rank not in messages]
    dead = [rank for rank in silent if exit_codes[rank] is not None]
    # If a worker died, the others report only a RuntimeError, because it does not respond.
    if dead and all(isinstance(error, RuntimeError) for error in errors):
        exit_code = exit_codes[dead[0]] or 0
        reason = f"exited with status {exit_code}"
        if exit_code < 0:
            reason = f"was killed by {signal.Signals(-exit_code).name}"
        raise ChildProcessError(
            f"process {dead[0] + 1} of {len(exit_codes)} {reason}, and the others were stopped. "
            f"The checkpoints are intact. Resume with: {resume_command}"
        )
    if errors:
        raise errors[0]


def worker_main(
    function: Callable[[], Any], rank: int, num_workers: int, port: int, sender: Connection
) -> None:
    """Call the function in a worker process, and send its result or exception to the parent."""
    SIGNAL_STATE.is_worker = True
    reset_after_fork()
    os.environ.pop("SLURM_NTASKS", None)  # SLURM has started the parent, not this process
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    threading.Thread(target=exit_with_parent, args=(os.getppid(),), daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // num_workers))
    if rank:
        logging.getLogger().setLevel(logging.ERROR)
    try:
        with catch_signals():
            message = function()
    except (Exception, Interrupted) as error:
        message = error
        if not isinstance(error, ValueError | OSError | Interrupted):
            error.add_note(f"in process {rank + 1} of {num_workers}:\n{traceback.format_exc()}")
    sender.send(message)
    sender.close()
    sys.stdout.flush()
    os._exit(1 if isinstance(message, BaseException) else 0)


def exit_with_parent(parent: int) -> None:
    """Kill this process as soon as its parent has ended."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)


def find_free_port() -> int:
    """Return a free TCP port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
