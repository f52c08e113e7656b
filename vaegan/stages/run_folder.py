"""The folder of a run: one run writes to it, and another command can go on with it.

config.json    what the run was begun with
vae/, gan/     a folder for each stage; result.json when the stage has ended
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaegan.config import to_plain
from vaegan.runtime.atomic_files import read_json, remove_partial, write_json
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.paths import display_path, shell_command
from vaegan.runtime.safe_load import read_content
from vaegan.runtime.signals import Interrupted, catch_signals, requeue
from vaegan.stages.config_diff import IGNORED_KEYS, LOCATION_KEYS, diff_configs
from vaegan.stages.training_runs import GANRun, PipelineRun, VAERun
from vaegan.training.loggers import truncate_logs
from vaegan.training.resume_checkpoints import ResumeCheckpoints, numbered
from vaegan.training.stage_result import StageResult

log = logging.getLogger(__name__)
LIBRARIES = ("torch", "lightning", "numpy", "zuko")


@dataclass
class RunFolder:
    """A run's folder, while it is this process's own.

    Args:
        path: Where it is.
        run: The run's plain config as it was typed: what is left to the data is not settled yet.
        stage: Of the run: vae, gan, pipeline.
    """

    path: Path
    run: dict[str, Any]
    stage: str

    def open(self, stage: str) -> Path:
        """The folder of a stage: a new one, or where the checkpoints are that the stage goes on from.

        Raises:
            ValueError: It cannot be made.
        """
        folder = self.path / stage
        if is_rank_zero():
            if folder.exists() and not has_checkpoints(folder):
                shutil.rmtree(folder)  # of a run that was killed before its first checkpoint
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(
                    f"cannot make the run folder {folder} ({error.strerror}); set hydra.run.dir"
                ) from error
            if not (self.path / "config.json").exists():
                versions = {name: version(name) for name in LIBRARIES}
                write_json(
                    self.path / "config.json",
                    {"stage": self.stage, "config": self.run, "versions": versions},
                )
        return broadcast(folder)

    def result(self, stage: str) -> StageResult | None:
        """What a stage that has ended has left; None while it has not."""
        path = self.path / stage / "result.json"
        if not path.exists():
            return None
        found = read_json(path)
        self.tidy(path.parent)
        log.info("stage %s has ended already: %s", stage, display_path(path.parent))
        return StageResult(
            path.parent,
            path.parent / "checkpoints" / "best.ckpt",
            found["metrics"],
            found["real_vs_real"],
        )

    def close(self, stage: str, result: StageResult) -> None:
        """Note that a stage has ended."""
        if is_rank_zero():
            write_json(
                result.folder / "result.json",
                {"metrics": result.metrics, "real_vs_real": result.real_vs_real},
            )
        self.tidy(result.folder)

    def tidy(self, folder: Path) -> None:
        """Remove the checkpoints that a stage could have gone on from, and what is broken of them."""
        if is_rank_zero():
            for path in (*numbered(folder), *(folder / "checkpoints").glob("*.broken")):
                path.unlink(missing_ok=True)


@contextmanager
def locked_run_folder(run: VAERun | GANRun | PipelineRun, path: Path) -> Iterator[RunFolder]:
    """Take a run's folder for this process alone. A signal that ends the run inside tells how to go on with it.

    Raises:
        ValueError: Another run writes to it, it holds one that shall not be gone on with, or was begun with other
            settings, or it cannot be made.
    """
    path = broadcast(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(
            path / ".lock", timeout=1
        )  # processes of a run that was killed may need a moment
        if is_rank_zero():
            lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another run is writing to {path}; wait for it, or set hydra.run.dir"
        ) from error
    except OSError as error:
        raise ValueError(
            f"cannot make the run folder {path} ({error.strerror}); set hydra.run.dir"
        ) from error
    resume, run.resume = (
        run.resume,
        False,
    )  # what is kept of a run does not tell whether it was stopped
    plain, stage, command = (
        to_plain(run),
        run.STAGE,
        shell_command(f"python train.py resume={display_path(path)}"),
    )
    try:
        if is_rank_zero():
            check_settings(path, stage, plain, resume)
        with catch_signals():
            yield RunFolder(path, plain, stage)
    except Interrupted as end:
        if is_rank_zero() and end.signum == signal.SIGUSR1:
            requeue()
        raise Interrupted(end.signum, f"{end}. To go on: {command}") from end
    except OSError as error:
        raise ValueError(
            f"{error}. The run has stopped; its checkpoints are whole. To go on when this is mended: {command}"
        ) from error
    finally:
        lock.release()


def check_settings(path: Path, stage: str, plain: Mapping[str, Any], resume: bool) -> None:
    """What is in the folder must be the same run, if anything is.

    Raises:
        ValueError: It is not, or it shall not be gone on with.
    """
    if not (path / "config.json").exists():
        if any((path / name).is_dir() and any((path / name).iterdir()) for name in ("vae", "gan")):
            raise ValueError(
                f"{path} holds a run already, which is never overwritten, and has no config.json to go on with; "
                "set hydra.run.dir to a new folder"
            )
        return
    if not resume:
        raise ValueError(
            f"{path} holds a run already, which is never overwritten; to go on with it: "
            f"{shell_command(f'python train.py resume={display_path(path)}')}; for another one set "
            "hydra.run.dir to a new folder"
        )
    there = read_json(path / "config.json")
    different = (
        diff_configs(there["config"], plain, (*IGNORED_KEYS, *LOCATION_KEYS))
        if there["stage"] == stage
        else [f"stage={stage}"]
    )
    if different:
        raise ValueError(
            f"{path} was begun with other settings, which would change the result: {', '.join(different)}; leave them "
            "as they were, or set hydra.run.dir to a new folder"
        )
    for name, was in there["versions"].items():
        if version(name) != was:
            log.warning(
                "%s %s has become %s since the run was begun: it may round differently",
                name,
                was,
                version(name),
            )


def has_checkpoints(folder: Path) -> bool:
    """Whether a stage has anything to go on from."""
    return (folder / "checkpoints" / "last.ckpt").exists() or bool(numbered(folder))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a stage that is whole, its logs taken back to it; None if there is none to go on from.

    Raises:
        ValueError: There are some, but none is whole.
    """
    found = None
    if is_rank_zero():
        remove_partial(folder / "checkpoints")
        last = folder / "checkpoints" / "last.ckpt"
        broken: list[Path] = []
        candidates = [*([last] if last.exists() else []), *numbered(folder)]
        for path in candidates:
            try:
                marks = read_content(path)["callbacks"][ResumeCheckpoints.__name__]["logs"]
                found = path
                break
            except ValueError as error:
                log.warning("%s; the checkpoint before it is used", error)
                broken.append(path)
        if candidates and found is None:
            raise ValueError(
                f"no checkpoint in {folder / 'checkpoints'} is whole; begin anew in another hydra.run.dir"
            )
        if found:
            for path in broken:
                path.rename(path.with_suffix(".broken"))  # else it would count as one of the newest
            truncate_logs(folder, marks)
            log.info("going on from %s", display_path(found))
    return broadcast(found)


log = logging.getLogger(__name__)


def new_folder(path: Path) -> Path:
    """Make the folder of a stage.

    Raises:
        ValueError: It holds a run already, or cannot be made.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(
            f"{path} holds a run already, which is never overwritten; set hydra.run.dir to a new folder"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make the run folder {path} ({error.strerror}); set hydra.run.dir"
        ) from error
    return path
