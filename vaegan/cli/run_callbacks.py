"""Hydra callback for single runs: check a command before Hydra writes to the run folder."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vaegan.cli import reservation
from vaegan.cli.errors import exit_on_errors
from vaegan.cli.registration import to_run_config
from vaegan.cli.reservation import Reservation
from vaegan.cli.result_folder import DEFAULT_DIR, result_folder
from vaegan.runtime.launch import is_launched_externally
from vaegan.runtime.paths import absolute_path
from vaegan.stages.execute import num_processes
from vaegan.stages.folder_access import CONFIG_FILE, check_run_folder, check_unlocked
from vaegan.stages.run_config import RunConfig, TrainingRun
from vaegan.stages.stage_table import STAGES, stage_of

NO_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}


class CheckRun(Callback):
    """Check the config and the folder of a run, so that a rejected command writes nothing.

    `~` in hydra.run.dir is the home folder. A folder with the time in its name is always new. The
    results of a trained model are written to its run folder by default. Of the processes that
    torchrun or SLURM start for one run, only the first writes Hydra's files.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with exit_on_errors():
            run = to_run_config(without_hydra_node(config))
            rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
            if rank != "0" and is_launched_externally() and num_processes(run) > 1:
                set_hydra(config, folder=".", output_subdir=None, job_logging=NO_LOGGING)
            elif STAGES[stage_of(run)].writes_files:
                reserve_folder(config, run)


def without_hydra_node(config: DictConfig) -> DictConfig:
    """Return a composed config without the `hydra` node; ${hydra:...} can still be resolved."""
    HydraConfig.instance().set_config(config)
    config = copy.deepcopy(config)
    with open_dict(config):
        del config["hydra"]
    return config


def reserve_folder(config: DictConfig, run: RunConfig) -> None:
    """Lock the run folder of a command, and check that the command may write there.

    Raises:
        ValueError: The folder contains a run, another run is writing to it, or `resume=true` is
            used with a folder that is always new.
    """
    if isinstance(run, TrainingRun) and run.resume and is_named_by_time(config.hydra.run):
        raise ValueError(
            "resume=true resumes the run in hydra.run.dir, which is a new folder for each command: "
            "add hydra.run.dir=FOLDER, or use resume=FOLDER or resume=last"
        )
    folder = Path(absolute_path(config.hydra.run.dir))
    if unresolved_dir(config.hydra.run) == DEFAULT_DIR:
        folder = result_folder(run, folder)
    log_name = f"{config.hydra.job.name}.log"
    reserved = Reservation(folder, log_name, is_new=is_named_by_time(config.hydra.run))
    folder = reserved.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not isinstance(run, TrainingRun):
        check_unlocked(folder)
        if (folder / CONFIG_FILE).exists():  # keep the .hydra of the run that is in the folder
            set_hydra(config, output_subdir=f".hydra/{stage_of(run)}")
    else:
        reserved.lock.acquire()
        try:
            check_run_folder(run, stage_of(run), folder)
        except ValueError:
            reserved.undo()
            reserved.lock.release()
            raise
    set_hydra(config, folder=str(folder))
    reservation.current = reserved


def set_hydra(config: DictConfig, folder: str | None = None, **values: Any) -> None:
    """Set the run folder and other values of the `hydra` node, which is read-only."""
    with read_write(config.hydra):
        for key, value in values.items():
            config.hydra[key] = value
        if folder is not None:
            config.hydra.run.dir = folder


def is_named_by_time(node: DictConfig) -> bool:
    """True if the folder in `hydra.run` or `hydra.sweep` has the time in its name."""
    return "${now:" in unresolved_dir(node)


def unresolved_dir(node: DictConfig) -> str:
    """Return the folder in `hydra.run` or `hydra.sweep`, with its interpolations as text."""
    unresolved: Any = OmegaConf.to_container(node, resolve=False)
    return str(unresolved["dir"])
