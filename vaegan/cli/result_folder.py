"""Default folder of a stage that uses a trained model: in the run folder of the model."""

from __future__ import annotations

import os
from pathlib import Path

from vaegan.runtime.last_run import newest_best_checkpoint
from vaegan.runtime.paths import LAST, absolute_path
from vaegan.stages.folder_access import CONFIG_FILE
from vaegan.stages.run_config import RunConfig, TrainingRun
from vaegan.stages.stage_table import stage_of

DEFAULT_DIR = "outputs/${hydra:runtime.choices.stage}/${now:%Y-%m-%d_%H-%M-%S}"  # conf/config.yaml
MAX_DEPTH = 5  # RUN/export/DATE_TIME/export/model.safetensors


def result_folder(run: RunConfig, default: Path) -> Path:
    """Return the folder of a command that does not set hydra.run.dir.

    The results of `stage=sample ckpt=RUN` are written to RUN/sample/DATE_TIME. If the model is not
    in a run folder, or the run folder is not writable, they are written to the default folder.

    Args:
        run: Config of the command.
        default: Folder outputs/STAGE/DATE_TIME.
    """
    ckpt = getattr(run, "ckpt", "")
    if isinstance(run, TrainingRun) or not ckpt or "://" in ckpt:
        return default
    path = newest_best_checkpoint(["vae", "gan"]) if ckpt == LAST else Path(absolute_path(ckpt))
    run_folder = None if path is None else find_run_folder(path.resolve())
    if run_folder is None or not os.access(run_folder, os.W_OK):
        return default
    return run_folder / stage_of(run) / default.name


def find_run_folder(path: Path) -> Path | None:
    """Return the folder of the training run that contains a path, or None."""
    for folder in (path, *path.parents[:MAX_DEPTH]):
        stages = (folder / stage / "checkpoints" for stage in ("vae", "gan"))
        if (folder / CONFIG_FILE).is_file() and any(stage.is_dir() for stage in stages):
            return folder
    return None
