"""Run folders: written by one run at a time, and resumable by a later command.

config.json    stage, settings and library versions at the start or the latest change of duration
vae/, gan/     one folder per stage; contains result.json once the stage has finished
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json, write_json
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.last_run import link_latest
from vaegan.runtime.paths import display_path
from vaegan.runtime.signals import REQUEUE_SIGNALS, Interrupted, catch_signals, requeue
from vaegan.stages.folder_access import (
    CONFIG_FILE,
    RESULT_FILE,
    FolderLock,
    check_run_folder,
    new_durations,
    resume_command,
)
from vaegan.stages.run_config import TrainingRun
from vaegan.stages.stage_checkpoints import has_checkpoints
from vaegan.training.resume_checkpoints import periodic_checkpoints
from vaegan.training.stage_result import StageResult

log = logging.getLogger(__name__)
LIBRARIES = ("torch", "lightning", "numpy", "zuko")  # versions are stored in config.json


@dataclass
class RunFolder:
    """Folder of a run, locked by this process.

    Args:
        path: Path of the folder.
        config: Plain config of the run, before data-dependent defaults are filled in.
        stage: Stage of the run: vae, gan or pipeline.
    """

    path: Path
    config: dict[str, Any]
    stage: str

    def open_stage(self, stage: str) -> Path:
        """Return the folder of a stage: a new one, or one with checkpoints to resume from.

        Raises:
            ValueError: The folder cannot be created.
        """
        folder = self.path / stage
        if is_rank_zero():
            if folder.exists() and not has_checkpoints(folder):
                shutil.rmtree(folder)  # left by a run killed before its first checkpoint
            create_folder(folder)
            self.write_config(accepts_new_duration=True)
        return broadcast(folder)

    def write_config(self, accepts_new_duration: bool = False) -> None:
        """Write config.json before training begins, or when a stage has a new duration.

        Paths may have changed since an attempt that was killed before its first checkpoint.

        Args:
            accepts_new_duration: True if the duration may differ from that in config.json.
        """
        config_file = self.path / CONFIG_FILE
        folder = self.path / ("vae" if self.stage == "pipeline" else self.stage)
        has_begun = has_checkpoints(folder) or (folder / RESULT_FILE).exists()
        is_changed = accepts_new_duration and self.new_durations()
        if is_changed or not (has_begun and config_file.exists()):
            versions = {name: version(name) for name in LIBRARIES}
            content = {"stage": self.stage, "config": self.config, "versions": versions}
            write_json(config_file, content)
            link_latest(self.path)

    def new_durations(self) -> list[str]:
        """Return the duration settings that differ from those in config.json."""
        return new_durations(self.path, self.config)

    def has_new_duration(self, stage: str) -> bool:
        """True if the duration of a stage differs from that in config.json."""
        prefix = f"{stage}." if self.stage == "pipeline" else ""
        return any(setting.startswith(prefix) for setting in self.new_durations())

    def prepare_resume(self, signum: int) -> None:
        """After a signal, make the run resumable, and requeue its SLURM job if requested."""
        if is_rank_zero():
            self.write_config()  # missing if the data set was still being prepared
            if signum in REQUEUE_SIGNALS:
                requeue()

    def finished_result(self, stage: str) -> StageResult | None:
        """Return the result of a stage; None if it has not finished, or has a new duration."""
        folder = self.path / stage
        if not (folder / RESULT_FILE).exists() or self.has_new_duration(stage):
            return None
        saved = read_json(folder / RESULT_FILE)
        self._remove_resume_checkpoints(folder)
        log.info("stage %s has already finished: %s", stage, display_path(folder))
        checkpoint = folder / "checkpoints" / "best.ckpt"
        real_vs_real, tag = saved["real_vs_real"], saved.get("monitor", "")
        return StageResult(folder, checkpoint, saved["metrics"], real_vs_real, tag)

    def finish_stage(self, result: StageResult) -> None:
        """Write the result of a stage, and remove its resume checkpoints except last.ckpt."""
        if is_rank_zero():
            content: dict[str, Any] = {"monitor": result.tag, "metrics": result.metrics}
            content["real_vs_real"] = result.real_vs_real
            write_json(result.folder / RESULT_FILE, content)
        self._remove_resume_checkpoints(result.folder)

    def _remove_resume_checkpoints(self, folder: Path) -> None:
        if is_rank_zero():
            broken = (folder / "checkpoints").glob("*.broken")
            for path in (*periodic_checkpoints(folder), *broken):
                path.unlink(missing_ok=True)


@contextmanager
def locked_run_folder(run: TrainingRun, stage: str, path: Path) -> Iterator[RunFolder]:
    """Lock a run folder. If a signal stops the run, the error message says how to resume it.

    Raises:
        ValueError: Another run is writing to the folder, it contains a run that is not to be
            resumed or has other settings, or it cannot be created.
    """
    path = broadcast(path)
    lock = FolderLock(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if is_rank_zero():
            lock.acquire()
    except OSError as error:
        raise folder_error(path, error) from error
    # A resumed run must have the same config as an uninterrupted one.
    run_folder = RunFolder(path, to_plain(replace(run, resume=False)), stage)
    try:
        if is_rank_zero():
            check_run_folder(run, stage, path)
            if (path / CONFIG_FILE).exists():
                warn_about_versions(read_json(path / CONFIG_FILE)["versions"])
        with catch_signals():
            yield run_folder
    except Interrupted as end:
        run_folder.prepare_resume(end.signum)
        message = f"{end}. Resume with: {resume_command(path, run_folder.config, run.plugins)}"
        raise Interrupted(end.signum, message, has_command=True) from end
    except OSError as error:
        raise ValueError(
            f"{error}. Run stopped; earlier checkpoints are intact. Fix the problem, then resume "
            f"with: {resume_command(path, run_folder.config, run.plugins)}"
        ) from error
    finally:
        lock.release()


def warn_about_versions(saved: Mapping[str, str]) -> None:
    """Warn if the version of a library has changed since the run was started."""
    message = "%s was %s when config.json was written and is now %s: results may differ by rounding"
    for name, old in saved.items():
        if version(name) != old:
            log.warning(message, name, old, version(name))


def create_folder(path: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        ValueError: The folder cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise folder_error(path, error) from error


def folder_error(path: Path, error: OSError) -> ValueError:
    """Return the error for a folder that cannot be created."""
    return ValueError(
        f"cannot create the folder {path} ({error.strerror}); set hydra.run.dir to another folder"
    )


def create_empty_folder(path: Path) -> Path:
    """Create a folder that must be empty if it exists.

    Raises:
        ValueError: The folder is not empty, or cannot be created.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(
            f"{path} already contains a run and will not be overwritten; set hydra.run.dir to a "
            "new folder"
        )
    create_folder(path)
    return path
