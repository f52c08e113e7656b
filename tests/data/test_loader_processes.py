"""Waiting for data loader processes ends when they fail, stall, or a signal arrives."""

import itertools
import os
import signal
import threading
import time
import warnings

import pytest
import torch
from torch.utils.data import Dataset

from vaegan.data import loader_processes
from vaegan.data.loader_processes import (
    NO_IMAGES,
    ImageLoader,
    explain_loader_failures,
    kill_loader_processes,
    wait_for_batches,
)
from vaegan.runtime.signals import (
    SIGNAL_STATE,
    Interrupted,
    catch_signals,
    deferred_signals,
    interruptible,
)


class Batches(Dataset):
    """Data set whose items are the results of a function, called in a loader process."""

    def __init__(self, load):
        self.load = load

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.load()


@pytest.fixture(autouse=True)
def clean_up():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*fork.*")
        yield
    kill_loader_processes()


def load_one(load):
    """Return the first batch of a loader process that calls a function."""
    loader = ImageLoader(Batches(load), is_training=False, batch_size=None, num_workers=1)
    with explain_loader_failures():
        return next(iter(loader))


def test_batches_are_delivered():
    assert load_one(lambda: 3) == 3


def test_batch_that_cannot_be_passed_on_ends_the_wait(capfd):
    # As with a full /dev/shm, the error occurs in the thread that passes batches on.
    with pytest.raises(
        ChildProcessError, match=r"/dev/shm .*docker run --shm-size=8g.*loader.num_workers=0"
    ):
        load_one(threading.Lock)
    assert "cannot pickle" in capfd.readouterr().err


def test_killed_process_ends_the_wait():
    with pytest.raises(ChildProcessError, match="a data loader process failed"):
        load_one(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_lock_of_a_killed_process_is_not_awaited():
    def die():
        time.sleep(0.5)  # until the test waits for the batch
        os.kill(os.getpid(), signal.SIGKILL)

    loader = ImageLoader(Batches(die), is_training=False, batch_size=None, num_workers=1)
    iterator = loader._get_iterator()
    with pytest.raises(ChildProcessError), explain_loader_failures():
        next(wait_for_batches(iterator, has_workers=True, is_training=False))
    iterator._workers_done_event._cond.acquire()  # as if the killed process had held it
    shutdown = threading.Thread(target=iterator._shutdown_workers, daemon=True)
    shutdown.start()
    shutdown.join(10)
    assert not shutdown.is_alive()


def test_iterators_are_found_while_processes_die(monkeypatch):
    errors = [RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")]

    def get_objects():
        if errors:
            raise errors.pop()
        return [loader_processes]

    monkeypatch.setattr(loader_processes.gc, "get_objects", get_objects)
    assert loader_processes.loader_iterators() == [] and not errors


def test_torch_forgets_killed_processes():
    loader = ImageLoader(Batches(lambda: 1), is_training=True, batch_size=None, num_workers=1)
    iterator = loader._get_iterator()
    kill_loader_processes()
    # A later iterator can have the same address. Torch raises an error if it knows the address.
    torch._C._set_worker_pids(id(iterator), ())
    torch._C._remove_worker_pids(id(iterator))


def test_an_iterator_that_could_not_be_built_is_ignored():
    iterator = object.__new__(loader_processes.LoaderIterator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader_processes, "loader_iterators", lambda: [iterator])
        kill_loader_processes()
    assert iterator._shutdown


def test_errors_of_the_data_set_are_not_explained():
    def fail():
        raise RuntimeError("no shared meaning")

    with pytest.raises(RuntimeError, match="no shared meaning"):
        load_one(fail)


def test_process_that_does_nothing_ends_the_wait(monkeypatch):
    monkeypatch.setattr(loader_processes, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(loader_processes, "STALLED_CHECKS", 20)
    with pytest.raises(ChildProcessError, match="neither read nor computed anything"):
        load_one(lambda: time.sleep(60))


def test_stopped_process_ends_the_wait(monkeypatch):
    monkeypatch.setattr(loader_processes, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(loader_processes, "STALLED_CHECKS", 20)
    with pytest.raises(ChildProcessError, match="neither read nor computed anything"):
        load_one(lambda: os.kill(os.getpid(), signal.SIGSTOP))


def test_slow_process_that_reads_is_waited_for(monkeypatch):
    def read_slowly():
        for _ in range(40):
            with open(__file__, "rb") as file:
                file.read(10)
            time.sleep(0.02)
        return 1

    monkeypatch.setattr(loader_processes, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(loader_processes, "STALLED_CHECKS", 6)
    assert load_one(read_slowly) == 1


def send_later(signum=signal.SIGTERM, seconds=0.2):
    threading.Timer(seconds, os.kill, (os.getpid(), signum)).start()


def hang():
    yield "first"
    time.sleep(30)


def test_signal_ends_the_wait_for_a_training_batch():
    start = time.monotonic()
    with catch_signals(), interruptible(), pytest.raises(Interrupted), deferred_signals():
        send_later()
        received = itertools.islice(wait_for_batches(hang(), False, is_training=True), 3)
        assert list(received) == ["first", NO_IMAGES, NO_IMAGES]
    assert time.monotonic() - start < 5


def test_signal_ends_the_wait_for_a_validation_batch(monkeypatch):
    monkeypatch.setattr(loader_processes, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(loader_processes, "SECONDS_AFTER_SIGNAL", 0.1)
    with catch_signals(), pytest.raises(Interrupted, match="while waiting for a batch"):
        send_later()
        load_one(lambda: time.sleep(60))


def test_death_of_a_process_after_a_signal_is_an_interruption(monkeypatch):
    monkeypatch.setattr(SIGNAL_STATE, "signum", signal.SIGTERM)
    with (
        pytest.raises(Interrupted, match="written checkpoints are intact"),
        explain_loader_failures(),
    ):
        raise RuntimeError("DataLoader worker (pid 123) is killed by signal: Killed. ")


def test_loader_processes_are_killed_although_they_ignore_signals():
    loader = ImageLoader(Batches(lambda: 1), is_training=True, batch_size=None, num_workers=2)
    iterator = loader._get_iterator()
    kill_loader_processes()
    for worker in iterator._workers:  # is_alive() is wrong if torch's handler interrupted a wait
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)
