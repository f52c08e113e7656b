"""Lock the run folder of a command before Hydra writes to it, and until the run has ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaegan.stages.folder_access import CONFIG_FILE, LOCK_FILE, FolderLock
from vaegan.stages.stage_table import STAGES

current: Reservation | None = None  # folder of the run of this process


class Reservation:
    """Run folder that is locked for a command, and restored if the command is rejected.

    Args:
        folder: The folder.
        log_name: Name of Hydra's log file in the folder.
        is_new: True to create the folder, with a number appended if the name is already taken.
    """

    def __init__(self, folder: Path, log_name: str, is_new: bool) -> None:
        self.new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        if is_new:
            folder = create_new_folder(folder)
            self.new_folders = [folder, *self.new_folders[1:]]
        self.folder = folder
        self.log_file = folder / log_name
        self.lock = FolderLock(folder)
        self.had_lock_file = (folder / LOCK_FILE).exists()
        own_names = (".hydra", *STAGES)
        self.new_subfolders = [folder / name for name in own_names if not (folder / name).exists()]
        self.hydra_files = {path: path.read_bytes() for path in self._find_hydra_files()}
        self.run_files = self._find_run_files()

    def undo(self) -> None:
        """Restore the files of Hydra, unless the run has already written its own files."""
        if self._find_run_files() != self.run_files:
            return
        for path in self._find_hydra_files():
            if path not in self.hydra_files:
                path.unlink()
            elif path.read_bytes() != self.hydra_files[path]:
                path.write_bytes(self.hydra_files[path])
        if not self.had_lock_file:
            (self.folder / LOCK_FILE).unlink(missing_ok=True)
        nested = [path for path in (self.folder / ".hydra").rglob("*") if path.is_dir()]
        for path in (*nested, *self.new_subfolders, *self.new_folders):
            with suppress(OSError):  # it is not empty, or does not exist
                path.rmdir()

    def _find_hydra_files(self) -> list[Path]:
        """Return the files that Hydra writes to a run folder."""
        paths = [self.log_file, *(self.folder / ".hydra").rglob("*")]
        return [path for path in paths if path.is_file()]

    def _find_run_files(self) -> set[tuple[Path, int, int]]:
        """Return path, size and time of the files that the stages write to a run folder."""
        paths = [self.folder / CONFIG_FILE, *self.folder.glob("comparison.*")]
        for stage in STAGES:
            paths += (self.folder / stage).rglob("*")
        files = [(path, path.stat()) for path in paths if path.is_file()]
        return {(path, stat.st_size, stat.st_mtime_ns) for path, stat in files}


def numbered_folders(folder: Path) -> Iterator[Path]:
    """Iterate over a folder and its numbered names: run, run_2, run_3, ..."""
    yield folder
    for number in itertools.count(2):
        yield folder.with_name(f"{folder.name}_{number}")


def create_new_folder(folder: Path) -> Path:
    """Create a folder under its first numbered name that no other command has taken."""
    for path in numbered_folders(folder):
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


@contextmanager
def ending_reservation() -> Iterator[None]:
    """Release the run folder at the end of a run, and restore it if the run is rejected."""
    global current
    try:
        yield
    except (ValueError, OSError):
        if current is not None:
            current.undo()
        raise
    finally:
        if current is not None:
            current.lock.release()
        current = None
