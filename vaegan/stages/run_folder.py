"""Run folders: one run writes to it, and another command can resume it.

config.json    settings that the run was started with
vae/, gan/     a folder for each stage; result.json once the stage has finished
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json, remove_partial, write_json
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.paths import display_path, shell_command
from vaegan.runtime.safe_load import load_archive
from vaegan.runtime.signals import Interrupted, catch_signals, requeue
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.run_config import TrainingRun
from vaegan.training.loggers import truncate_logs
from vaegan.training.resume_checkpoints import ResumeCheckpoints, numbered
from vaegan.training.stage_result import StageResult

log = logging.getLogger(__name__)
CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"
LIBRARIES = ("torch", "lightning", "numpy", "zuko")  # a run notes their versions
LOCK_SECONDS = 1.0  # processes of a run that was killed may need a moment to end


@dataclass
class RunFolder:
    """Folder of a run, locked by this process.

    Args:
        path: The folder.
        config: Plain config of the run, before values that depend on the data are filled in.
        stage: Stage of the run: vae, gan, pipeline.
    """

    path: Path
    config: dict[str, Any]
    stage: str

    def open_stage(self, stage: str) -> Path:
        """Return the folder of a stage: a new one, or one with checkpoints to resume from.

        Raises:
            ValueError: It cannot be created.
        """
        folder = self.path / stage
        if is_rank_zero():
            if folder.exists() and not has_checkpoints(folder):
                shutil.rmtree(folder)  # of a run that was killed before its first checkpoint
            create_folder(folder)
            config_file = self.path / CONFIG_FILE
            if not config_file.exists():
                versions = {name: version(name) for name in LIBRARIES}
                content = {"stage": self.stage, "config": self.config, "versions": versions}
                write_json(config_file, content)
        return broadcast(folder)

    def finished_result(self, stage: str) -> StageResult | None:
        """Return the result of a stage, or None if it has not finished."""
        folder = self.path / stage
        if not (folder / RESULT_FILE).exists():
            return None
        saved = read_json(folder / RESULT_FILE)
        self._remove_resume_checkpoints(folder)
        log.info("stage %s has already finished: %s", stage, display_path(folder))
        checkpoint = folder / "checkpoints" / "best.ckpt"
        return StageResult(folder, checkpoint, saved["metrics"], saved["real_vs_real"])

    def finish_stage(self, result: StageResult) -> None:
        """Write the result of a stage."""
        if is_rank_zero():
            content = {"metrics": result.metrics, "real_vs_real": result.real_vs_real}
            write_json(result.folder / RESULT_FILE, content)
        self._remove_resume_checkpoints(result.folder)

    def _remove_resume_checkpoints(self, folder: Path) -> None:
        if is_rank_zero():
            broken = (folder / "checkpoints").glob("*.broken")
            for path in (*numbered(folder), *broken):
                path.unlink(missing_ok=True)


@contextmanager
def locked_run_folder(run: TrainingRun, stage: str, path: Path) -> Iterator[RunFolder]:
    """Lock a run's folder. If a signal ends the run inside, the error says how to resume it.

    Raises:
        ValueError: Another run writes to it, it holds a run that is not to be resumed, or one with
            other settings, or it cannot be created.
    """
    path = broadcast(path)
    lock = FileLock(path / ".lock", timeout=LOCK_SECONDS)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if is_rank_zero():
            lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another run is writing to {path}; wait for it, or set hydra.run.dir"
        ) from error
    except OSError as error:
        raise cannot_create(path, error) from error
    config = to_plain(
        replace(run, resume=False)
    )  # a resumed run is the same as an uninterrupted one
    command = shell_command(f"python train.py resume={display_path(path)}")
    try:
        if is_rank_zero():
            check_settings(path, stage, config, run.resume, command)
        with catch_signals():
            yield RunFolder(path, config, stage)
    except Interrupted as end:
        if is_rank_zero() and end.signum == signal.SIGUSR1:
            requeue()
        raise Interrupted(end.signum, f"{end}. Resume with: {command}") from end
    except OSError as error:
        raise ValueError(
            f"{error}. Run stopped; checkpoints are intact. Fix the problem, then resume with: "
            f"{command}"
        ) from error
    finally:
        lock.release()


def check_settings(
    path: Path, stage: str, config: Mapping[str, Any], resume: bool, command: str
) -> None:
    """Check that a folder holds no run, or the same one if it is to be resumed.

    Args:
        path: The run folder.
        stage: Stage of the run.
        config: Its plain config.
        resume: True if the run in the folder is to be resumed.
        command: The command that resumes it.

    Raises:
        ValueError: It holds another run, or one that is not to be resumed.
    """
    new_folder_hint = "set hydra.run.dir to a new folder"
    if not (path / CONFIG_FILE).exists():
        stages = [path / name for name in ("vae", "gan") if (path / name).is_dir()]
        if any(any(folder.iterdir()) for folder in stages):
            raise ValueError(
                f"{path} already contains a run and will not be overwritten. It cannot be resumed: "
                f"it has no {CONFIG_FILE}; {new_folder_hint}"
            )
        return
    if not resume:
        raise ValueError(
            f"{path} already contains a run and will not be overwritten. Resume it with: "
            f"{command}; for another one {new_folder_hint}"
        )
    saved = read_json(path / CONFIG_FILE)
    differing = [f"stage={stage}"]
    if saved["stage"] == stage:
        differing = diff_configs(saved["config"], config, (*IGNORED_KEYS, *LOCATION_KEYS))
    if differing:
        raise ValueError(
            f"{path} was started with other settings, which would change the result: "
            f"{', '.join(differing)}; leave them as they were, or {new_folder_hint}"
        )
    warn_about_versions(saved["versions"])


def warn_about_versions(saved: Mapping[str, str]) -> None:
    """Warn if a library has another version than when the run was started."""
    message = "%s was %s when the run was started and is %s now: it may round differently"
    for name, old in saved.items():
        if version(name) != old:
            log.warning(message, name, old, version(name))


def has_checkpoints(folder: Path) -> bool:
    """Return True if a stage has a checkpoint to resume from."""
    return (folder / "checkpoints" / "last.ckpt").exists() or bool(numbered(folder))


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest intact checkpoint of a stage, if any, and truncate its logs to it.

    Raises:
        ValueError: There are checkpoints, but none is intact.
    """
    found = None
    if is_rank_zero():
        remove_partial(folder / "checkpoints")
        last = folder / "checkpoints" / "last.ckpt"
        candidates = [last] if last.exists() else []
        candidates += numbered(folder)
        broken = []
        for path in candidates:
            try:
                log_position = load_archive(path)["callbacks"][ResumeCheckpoints.__name__]["logs"]
            except ValueError as error:
                log.warning("%s; the checkpoint before it is used", error)
                broken.append(path)
                continue
            found = path
            break
        if candidates and found is None:
            raise ValueError(
                f"no checkpoint in {folder / 'checkpoints'} is intact; start again in another "
                "hydra.run.dir"
            )
        if found:
            for path in broken:
                path.rename(path.with_suffix(".broken"))  # else it counts as one of the newest
            truncate_logs(folder, log_position)
            log.info("resuming from %s", display_path(found))
    return broadcast(found)


def create_folder(path: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        ValueError: It cannot be created.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_create(path, error) from error


def cannot_create(path: Path, error: OSError) -> ValueError:
    """Return the error of a folder that cannot be created."""
    return ValueError(f"cannot create the folder {path} ({error.strerror}); set hydra.run.dir")


def create_empty_folder(path: Path) -> Path:
    """Create a folder that must not have content.

    Raises:
        ValueError: It has content, or cannot be created.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(
            f"{path} already contains a run and will not be overwritten; set hydra.run.dir to a "
            "new folder"
        )
    create_folder(path)
    return path
