"""Hydra callbacks for sweeps: check all jobs before the first one, summarize them at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vaegan.cli.errors import describe
from vaegan.cli.registration import to_run_config
from vaegan.cli.reservation import create_new_folder
from vaegan.cli.run_callbacks import is_named_by_time
from vaegan.config import require, to_plain
from vaegan.runtime.launch import is_launched_externally
from vaegan.runtime.paths import quote_for_hydra
from vaegan.runtime.program import with_program_name
from vaegan.stages.execute import num_processes
from vaegan.stages.folder_access import check_unlocked
from vaegan.sweeps.outcome import find_finished_outcome


class CheckSweep(Callback):
    """Compose every job of a sweep before the first job starts.

    An invalid value in any job, or a folder with a finished job of another config, then stops the
    sweep at once. Sweepers that choose values during the sweep (optuna) are checked at both ends of
    all ranges.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if is_launched_externally():
            raise SystemExit(
                "error: torchrun or SLURM started several processes, and each of them would run "
                "the whole sweep. Start the sweep in one process, and set trainer.devices=N to "
                "start the processes of each job"
            )
        # Not resolved: ${...} in the overrides refers to the config of a job.
        overrides: Any = OmegaConf.to_container(config.hydra.overrides)
        is_basic = config.hydra.sweeper._target_.endswith(".BasicSweeper")
        distributed_flags = set()
        sweep_dir = Path(config.hydra.sweep.dir).expanduser()
        for number, job in enumerate(expand_jobs(config, overrides["task"], is_basic)):
            try:
                job_overrides = [*overrides["hydra"], *job]
                name = config.hydra.job.config_name
                composed = hydra.compose(name, job_overrides, return_hydra_config=True)
                folder = sweep_dir / pop_hydra_node(composed, number)
                run = to_run_config(composed)
                distributed_flags.add(num_processes(run) > 1)
                expected = "1 in all jobs of a sweep, or in none"
                require(len(distributed_flags) == 1, "trainer.devices", expected, "a mix")
                if is_basic:
                    check_unlocked(folder)
                    find_finished_outcome(folder, to_plain(run))
            except Exception as error:
                if (message := describe(error, job)) is not None:
                    raise job_error(message, job) from error
                raise
        # Created now, because the database of an optuna study may be stored in this folder.
        folder = sweep_dir
        if is_named_by_time(config.hydra.sweep):
            folder = create_new_folder(sweep_dir)
        folder.mkdir(parents=True, exist_ok=True)
        if str(folder) != config.hydra.sweep.dir:  # the jobs compose their configs again
            with read_write(config.hydra):
                config.hydra.sweep.dir = str(folder)
                override = f"hydra.sweep.dir={quote_for_hydra(str(folder))}"
                config.hydra.overrides.hydra.append(override)


class SummarizeSweep(Callback):
    """Print a summary of the jobs after a sweep, and exit with an error if any job failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from vaegan.sweeps.summary import summarize

        jobs = summarize(Path(config.hydra.sweep.dir))
        failed = [name for name, job in jobs.items() if job.status == "failed"]
        if failed:
            names = ", ".join(failed)
            raise SystemExit(f"error: {len(failed)} of {len(jobs)} jobs failed: {names}")


def expand_jobs(config: DictConfig, task: list[str], is_basic: bool) -> list[list[str]]:
    """Return the overrides of each job, or of the jobs at both ends of all ranges."""
    params = config.hydra.sweeper.params or {}  # params of an experiment file
    param_overrides = [f"{key}={value}" for key, value in params.items()]
    parsed = OverridesParser.create().parse_overrides([*param_overrides, *task])
    if is_basic:
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        if not jobs:
            raise SystemExit("error: the sweep has no jobs: a range of values is empty")
        return jobs
    ends = []
    for index in (0, -1):
        last_by_key = {item.get_key_element(): range_end(item, index) for item in parsed}
        ends.append(list(last_by_key.values()))
    return ends


def range_end(override: Override, index: int) -> str:
    """Return an override with the first (0) or the last (-1) value of its range or list."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={(value.start, value.end)[index]}"
    if override.is_sweep_override():
        return f"{override.get_key_element()}={list(override.sweep_string_iterator())[index]}"
    return str(override.input_line)


def pop_hydra_node(config: DictConfig, number: int) -> str:
    """Return the name of a job's folder, and remove the `hydra` node from the job's config."""
    with open_dict(config):
        config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # read by ${hydra:...}
        try:
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = None
        del config["hydra"]
    return name


def job_error(message: str, job: list[str]) -> SystemExit:
    """Return the error for an invalid job."""
    message = with_program_name(f"error: {message}")
    return SystemExit(f"{message}\nin this job of the sweep: {' '.join(job)}")
