"""Access to run folders: locks, and the runs that folders already contain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaegan.config import flatten, to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.paths import path_override, shell_command
from vaegan.stages.config_diff import IGNORED_KEYS, KEPT_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.run_config import TrainingRun

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
LOCK_FILE = ".lock"
DURATION_KEYS = ("max_epochs", "max_images")  # keys of a trainer that set the duration
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
        ValueError: Settings that change the result differ, or the duration of a VAE from which a
            GAN has been started.
    """
    has_gan = (path / "gan" / RESULT_FILE).exists()
    has_gan = has_gan or any((path / "gan" / "checkpoints").glob("*.ckpt"))
    durations = changed_durations(saved["config"], config)
    fixed = [setting for setting in durations if setting.startswith("vae.")] if has_gan else []
    if fixed:
        raise ValueError(
            f"the duration of the VAE in {path} can no longer be changed ({', '.join(fixed)}), "
            "because a GAN has been started from it; use the earlier duration, or start a new run"
            f"{advise_init('vae', path)}"
        )
    ignored = [*IGNORED_KEYS, *LOCATION_KEYS, *(f"trainer.{key}" for key in DURATION_KEYS)]
    if "dataset" in saved["config"] and saved["config"]["dataset"] is None:
        ignored.append("dataset")  # that of the VAE, which may be given with another folder
    differing = [f"stage={stage}"]
    if saved["stage"] == stage:
        differing = diff_configs(saved["config"], config, ignored, KEPT_KEYS)
    if differing:
        raise ValueError(
            f"{path} was started with other settings, which would change the result: "
            f"{', '.join(differing)}; restore these settings, or set hydra.run.dir to a new folder"
        )


def resume_command(path: Path, config: Mapping[str, Any], plugins: Sequence[str]) -> str:
    """Return the command that resumes a run, with duration settings that config.json lacks."""
    words = [path_override("resume", path), *new_durations(path, config)]
    return shell_command(f"python train.py {' '.join(words)}", plugins)


def new_durations(path: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the duration settings that differ from those in the config.json of a folder."""
    file = path / CONFIG_FILE
    return changed_durations(read_json(file)["config"], config) if file.exists() else []


def changed_durations(saved: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the duration settings that a plain config changes, as typed on a command line."""
    before, after = flatten(saved), flatten(config)
    return [
        f"{key}={'null' if value is None else value}"
        for key, value in after.items()
        if key.rpartition(".")[2] in DURATION_KEYS and before.get(key) != value
    ]


def advise_init(stage: str, path: Path) -> str:
    """Return the end of a sentence that advises a new run, with the command; "" without a model."""
    if not (path / stage / "checkpoints" / "best.ckpt").exists():
        return ""
    command = f"python train.py stage={stage} {path_override('init', path)}"
    return f" from this model, repeating the other settings: {command}"
