"""Wait for the batches of a data loader, without hanging.

A data loader process that cannot deliver a batch must end the run instead of leaving the main
process waiting, and a termination signal must end the wait.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter as LoaderIterator

from vaegan.runtime.signals import SIGNAL_STATE, Interrupted, ignore_signals, interruptible

CHECK_SECONDS = 1.0  # time between two checks of the processes that load the next batch
# Checks without progress before the run ends: 10 minutes. Checks are counted instead of seconds, so
# that a suspended run can continue.
STALLED_CHECKS = 600
SECONDS_AFTER_SIGNAL = 10.0  # time that processes get to deliver a batch after a signal
# torch's messages about processes that died, or batches that cannot be passed on
PROCESS_FAILURE = re.compile(
    r"DataLoader worker \(pid|shared memory|Pin memory thread|Too many open files"
)
NO_IMAGES = (torch.empty(0, 1, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.long))


class ImageLoader(DataLoader[Any]):
    """Data loader whose batches are awaited with `wait_for_batches`.

    Args:
        dataset: Data set.
        is_training: True if a signal is handled at the start of a training batch.
        options: Other arguments of DataLoader.
    """

    def __init__(self, dataset: Dataset[Any], *, is_training: bool, **options: Any) -> None:
        super().__init__(dataset, worker_init_fn=start_worker, **options)
        self.is_training = is_training

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return wait_for_batches(super().__iter__(), self.num_workers > 0, self.is_training)


def start_worker(worker: int) -> None:
    """Prepare a data loader process: it ignores signals, and ends if it cannot deliver a batch."""
    ignore_signals(worker)
    # By default the thread that delivers batches prints the error and drops the batch.
    Queue._on_queue_feeder_error = staticmethod(exit_after_error)  # type: ignore[attr-defined]


def exit_after_error(error: Exception, batch: Any) -> None:
    """End this data loader process, so that the main process notices the error."""
    with suppress(OSError):
        os.write(2, f"data loader process {os.getpid()}: {error}\n".encode())
    os._exit(1)


def wait_for_batches(batches: Iterator[Any], has_workers: bool, is_training: bool) -> Iterator[Any]:
    """Yield the batches of a data loader.

    Args:
        batches: Iterator of the data loader.
        has_workers: True if other processes load the batches.
        is_training: True if a signal is handled at the start of a training batch. A batch without
            images then follows a signal, because the next one might never come.

    Raises:
        ChildProcessError: The processes made no progress for a long time.
        Interrupted: A signal arrived, and the processes do not deliver the next batch.
    """
    watch = LoaderWatch(multiprocessing.active_children() if has_workers else [])
    try:
        while True:
            try:
                with watch.waiting(), interruptible() if is_training else nullcontext():
                    batch = next(batches)
            except StopIteration:
                return
            except RuntimeError:
                if any(not process.is_alive() for process in watch.processes):
                    kill_loader_processes()
                watch.raise_reason()
                raise
            yield batch
    except Interrupted:
        if not is_training:
            raise
    finally:
        watch.is_finished.set()
    while True:
        yield NO_IMAGES


class LoaderWatch:
    """Kills data loader processes if they make no progress while a batch is awaited.

    The main process then gets torch's error about dead processes. A process that reads or computes
    slowly makes progress.

    Args:
        processes: Data loader processes; empty to do nothing.
    """

    def __init__(self, processes: Iterable[Any]) -> None:
        self.processes = list(processes)
        self.is_waiting = False
        self.is_stalled = False
        self.is_finished = threading.Event()
        if self.processes:
            threading.Thread(target=self._run, daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Watch the processes inside the context."""
        self.is_waiting = True
        try:
            yield
        finally:
            self.is_waiting = False

    def raise_reason(self) -> None:
        """Raise the reason why the processes were killed, if they were."""
        if SIGNAL_STATE.signum:
            raise Interrupted(SIGNAL_STATE.signum, "stopped while waiting for a batch")
        if self.is_stalled:
            minutes = STALLED_CHECKS * CHECK_SECONDS / 60
            raise ChildProcessError(
                f"the data loader processes neither read nor computed anything for {minutes:.0f} "
                "minutes, while a batch was needed. Check the storage of the images, and "
                f"{shared_memory_advice()}"
            )

    def _run(self) -> None:
        previous: list[tuple[int, int]] = []
        num_idle = 0
        while not self.is_finished.wait(CHECK_SECONDS):
            progress = [work_done(process.pid) for process in self.processes]
            is_idle = self.is_waiting and progress == previous
            previous = progress
            num_idle = num_idle + 1 if is_idle else 0
            self.is_stalled = num_idle >= STALLED_CHECKS and has_process_files()
            is_late = time.monotonic() - SIGNAL_STATE.received_at > SECONDS_AFTER_SIGNAL
            if self.is_stalled or (self.is_waiting and is_late):
                for process in self.processes:
                    process.kill()
                return


def has_process_files() -> bool:
    """True if the progress of other processes can be read, as on Linux."""
    return sys.platform == "linux" and Path("/proc/self/io").exists()


def work_done(pid: int) -> tuple[int, int]:
    """Return the CPU seconds and the bytes read by a process so far; zeros if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        io = Path(f"/proc/{pid}/io").read_text().split()
        ticks = int(stat[11]) + int(stat[12])
        return ticks // os.sysconf("SC_CLK_TCK"), int(io[1])
    except (OSError, ValueError, IndexError, AttributeError):
        return 0, 0


@contextmanager
def explain_loader_failures() -> Iterator[None]:
    """Turn torch's errors about data loader processes into an error that says what to do.

    Raises:
        ChildProcessError: A process died, or could not deliver a batch.
        Interrupted: A process died after a signal, which ends the run.
    """
    try:
        yield
    except RuntimeError as error:
        if not PROCESS_FAILURE.search(str(error)):
            raise
        if SIGNAL_STATE.signum:
            message = "stopped because a data loader process died; written checkpoints are intact"
            raise Interrupted(SIGNAL_STATE.signum, message) from error
        reason = next(line for line in str(error).splitlines() if PROCESS_FAILURE.search(line))
        raise ChildProcessError(
            f"a data loader process failed ({reason.strip()}). Unless something else ended it, "
            f"{shared_memory_advice()}"
        ) from error


def shared_memory_advice() -> str:
    """Return what to do if /dev/shm, the shared memory for batches, is too small."""
    size = ""
    with suppress(OSError):
        size = f" ({shutil.disk_usage('/dev/shm').total / 1e6:,.0f} MB)"
    return (
        f"/dev/shm{size}, the shared memory that passes batches between processes, may be full: "
        "enlarge it (docker run --shm-size=8g), or set loader.num_workers=0"
    )


def loader_iterators() -> list[Any]:
    """Return the iterators of all data loaders with processes, also those of other libraries."""
    while True:
        # Torch's handler of SIGCHLD raises an error, once per iterator, if a process has died.
        with suppress(RuntimeError):
            return [item for item in gc.get_objects() if issubclass(type(item), LoaderIterator)]


def kill_loader_processes() -> None:
    """Kill the data loader processes of this process, which have nothing to save.

    Afterwards torch does not shut them down, because it could wait forever for a lock that a
    process held when it was killed.
    """
    for iterator in loader_iterators():
        iterator._shutdown = True
        # Torch has a table of processes, by the address of the iterator. If the construction of an
        # iterator failed, it is not in the table.
        if getattr(iterator, "_worker_pids_set", False):
            torch._C._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
        if hasattr(iterator, "_pin_memory_thread_done_event"):
            iterator._pin_memory_thread_done_event.set()
    processes = [process for process in multiprocessing.active_children() if process.daemon]
    deadline = time.monotonic() + 2.0
    while processes and time.monotonic() < deadline:
        with suppress(RuntimeError):  # raised by torch's handler of SIGCHLD
            for process in processes:
                process.kill()
            for process in processes:
                process.join(0.1)
            processes = [process for process in processes if process.is_alive()]
