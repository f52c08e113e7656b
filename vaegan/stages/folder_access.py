"""Access to run folders: locks, and the runs that folders already contain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.paths import path_override, shell_command
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.run_config import TrainingRun

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
DURATION_KEYS = ("max_epochs", "max_images")  # of a trainer
LOCK_SECONDS = 1.0  # the processes of a killed run may need a moment to end
held_folders: set[Path] = set()  # locked by this process, or by the parent of a worker process


class FolderLock:
    """Lock of a run folder.

    A second lock of a folder that is already locked by this command has no effect: the command line
    locks the folder before Hydra writes to it, and the stage locks it again.

    Args:
        folder: The folder, which must exist when the lock is acquired.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.lock: FileLock | None = None

    def acquire(self, timeout: float = LOCK_SECONDS) -> None:
        """Lock the folder.

        Raises:
            ValueError: Another run is writing to the folder.
        """
        if self.folder in held_folders:
            return
        lock = FileLock(self.folder / LOCK_FILE, timeout=timeout)
        try:
            lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"another run is writing to {self.folder}; wait until it ends, or set "
                "hydra.run.dir to another folder"
            ) from error
        self.lock = lock
        held_folders.add(self.folder)

    def release(self) -> None:
        """Release the folder, if this object has locked it."""
        if self.lock is not None:
            held_folders.discard(self.folder)
            self.lock.release()
            self.lock = None


def check_unlocked(folder: Path) -> None:
    """Check that no run is writing to a folder.

    Raises:
        ValueError: Another run is writing to the folder.
    """
    if (folder / LOCK_FILE).exists():
        lock = FolderLock(folder)
        lock.acquire(timeout=0)
        lock.release()


def is_locked(folder: Path) -> bool:
    """True if a run is writing to a folder; False if only other users may write to it."""
    try:
        check_unlocked(folder)
    except ValueError:
        return True
    except OSError:
        return False
    return False


def check_run_folder(run: TrainingRun, stage: str, path: Path) -> dict[str, Any]:
    """Check that a folder contains no run, or the same run if it is to be resumed.

    Args:
        run: Config of the new run.
        stage: Stage of the new run.
        path: Run folder.

    Returns:
        Plain config of the new run, as config.json keeps it.

    Raises:
        ValueError: The folder contains another run, or `resume` is not set.
    """
    # A resumed run must have the same config as an uninterrupted one.
    config = to_plain(replace(run, resume=False))
    new_folder_hint = "set hydra.run.dir to a new folder"
    if not (path / CONFIG_FILE).exists():
        stages = [path / name for name in ("vae", "gan") if (path / name).is_dir()]
        if any(any(folder.iterdir()) for folder in stages):
            raise ValueError(
                f"{path} already contains a run and will not be overwritten. It cannot be resumed: "
                f"it has no {CONFIG_FILE}; {new_folder_hint}"
            )
        return config
    if not run.resume:
        command = shell_command(f"python train.py {path_override('resume', path)}", run.plugins)
        raise ValueError(
            f"{path} already contains a run and will not be overwritten. Resume it with: "
            f"{command}; for a new run, {new_folder_hint}"
        )
    check_same_run(read_json(path / CONFIG_FILE), stage, config, path)
    return config


def check_same_run(
    saved: Mapping[str, Any], stage: str, config: Mapping[str, Any], path: Path
) -> None:
    """Check that a run has the stage and the settings of the run in its folder.

    The stage itself checks whether it can continue with another duration
    (`vaegan.stages.new_duration`).

    Raises:
        ValueError: Settings that change the result differ.
    """
    stages = ["trainer"]
    if stage == "pipeline" and any((path / "gan" / "checkpoints").glob("*.ckpt")):
        stages = ["gan.trainer"]  # the GAN has started from the VAE, whose duration is now fixed
    durations = [f"{trainer}.{key}" for trainer in stages for key in DURATION_KEYS]
    ignored = [*IGNORED_KEYS, *LOCATION_KEYS, *durations]
    if "dataset" in saved["config"] and saved["config"]["dataset"] is None:
        ignored.append("dataset")  # that of the VAE, which may be given with another folder
    differing = [f"stage={stage}"]
    if saved["stage"] == stage:
        differing = diff_configs(saved["config"], config, ignored)
    if differing:
        is_longer_vae = any(".trainer.max_" in setting for setting in differing)
        hint = advise_init("vae", path) if is_longer_vae else ""
        raise ValueError(
            f"{path} was started with other settings, which would change the result: "
            f"{', '.join(differing)}; restore these settings, or set hydra.run.dir to a new folder"
            f"{hint}"
        )


def duration_of(config: Mapping[str, Any], stage: str | None) -> list[Any]:
    """Return the settings of the duration in the plain config of a run.

    Args:
        config: Plain config.
        stage: Stage of a pipeline; None: the run has a single stage.
    """
    trainer = (config if stage is None else config.get(stage, {})).get("trainer", {})
    return [trainer.get(key) for key in DURATION_KEYS]


def advise_init(stage: str, path: Path) -> str:
    """Return advice for training the model of a stage further in a new run, if there is one."""
    if not (path / stage / "checkpoints" / "best.ckpt").exists():
        return ""
    command = f"python train.py stage={stage} {path_override('init', path)}"
    advice = "To train its model further, start a new run from it and repeat the other settings"
    return f". {advice}: {command}"
