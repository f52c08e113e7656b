"""The package can be imported and used without the calls that only Unix has."""

import enum
import importlib
import multiprocessing
import os
import pkgutil
import signal
import sys

import pytest

from tests.faults import run_in_process

WINDOWS_SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")
UNIX_CALLS = ("fork", "killpg", "setpgid", "setsid", "sched_getaffinity", "sysconf", "uname")
UNIX_CALLS += ("posix_fadvise", "O_DIRECTORY", "O_NONBLOCK")


def reload_without_unix_calls():
    """Remove what Windows does not have, then import all modules of the package again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "vaegan"]:
        del sys.modules[name]
    for name in set(signal.Signals.__members__) - set(WINDOWS_SIGNALS):
        delattr(signal, name)
    numbers = {name: int(getattr(signal, name)) for name in WINDOWS_SIGNALS}
    signal.Signals = enum.IntEnum("Signals", numbers)
    for name in UNIX_CALLS:
        delattr(os, name)
    sys.modules["fcntl"] = sys.modules["resource"] = None  # raises an ImportError
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    sys.platform = "win32"
    import vaegan

    for module in pkgutil.walk_packages(vaegan.__path__, "vaegan."):
        importlib.import_module(module.name)


def test_all_modules_are_imported_without_unix_calls(tmp_path):
    run_in_process(tmp_path / "log", reload_without_unix_calls)


def test_files_signals_and_threads_work_without_unix_calls(tmp_path):
    def use():
        reload_without_unix_calls()
        from vaegan.data.images.reading import count_usable_cores
        from vaegan.data.loader_processes import has_process_files, work_done
        from vaegan.runtime.atomic_files import read_json, write_json
        from vaegan.runtime.signals import SIGNAL_STATE, catch_signals

        write_json(tmp_path / "file.json", {"a": 1})
        assert read_json(tmp_path / "file.json") == {"a": 1}
        with catch_signals():
            signal.raise_signal(signal.SIGTERM)
            assert SIGNAL_STATE.signum == 15
        assert count_usable_cores() >= 1
        assert not has_process_files() and work_done(os.getpid()) == (0, 0)

    run_in_process(tmp_path / "log", use)


def test_several_devices_without_fork_need_torchrun(tmp_path):
    def launch():
        reload_without_unix_calls()
        from vaegan.runtime.launch import launch

        with pytest.raises(ValueError, match="trainer.devices=2: .* torchrun --nproc-per-node=2"):
            launch(print, 2, 1, "")

    run_in_process(tmp_path / "log", launch)
