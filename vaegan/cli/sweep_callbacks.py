"""Hydra callbacks of sweeps: check all jobs before the first starts, summarize them at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from vaegan.cli.registration import to_run_config
from vaegan.cli.suggestions import explain, explain_null_component
from vaegan.config import require, to_plain
from vaegan.runtime.launch import is_started_from_outside
from vaegan.stages.execute import num_processes
from vaegan.sweeps.outcome import finished_before


class CheckSweep(Callback):
    """Composes every job of a sweep before the first one starts.

    A bad value in the third job is reported at once, and so is a folder that holds a finished job
    with other settings. With sweepers that choose their values as they go, only the jobs at both
    ends of all ranges are checked.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if is_started_from_outside():
            raise SystemExit(
                "error: torchrun or SLURM has started several processes, and each would run this "
                "sweep with values of its own; start it once, and let trainer.devices=N start the "
                "processes of each job"
            )
        # Unresolved: ${...} in the overrides is for a job.
        overrides: Any = OmegaConf.to_container(config.hydra.overrides)
        is_basic = config.hydra.sweeper._target_.endswith(".BasicSweeper")
        is_distributed = set()
        for number, job in enumerate(expand_jobs(config, overrides["task"], is_basic)):
            try:
                words = [*overrides["hydra"], *job]
                name = config.hydra.job.config_name
                composed = hydra.compose(name, words, return_hydra_config=True)
                folder = Path(config.hydra.sweep.dir) / take_subdir(composed, number)
                run = to_run_config(composed)
                is_distributed.add(num_processes(run) > 1)
                expected = "1 in all jobs of a sweep, or in none"
                require(len(is_distributed) == 1, "trainer.devices", expected, "both")
                if is_basic:
                    finished_before(folder, to_plain(run))
            except (HydraException, ValueError) as error:
                raise job_error(explain(error, job), job) from error
            except AssertionError as error:
                raise job_error(explain_null_component(job), job) from error
        # A study's database may lie in it.
        Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)


class SummarizeSweep(Callback):
    """Shows the jobs of a sweep at its end, however they were launched, and which ones failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from vaegan.sweeps.summary import summarize

        jobs = summarize(Path(config.hydra.sweep.dir))
        failed = [name for name, job in jobs.items() if job.status == "failed"]
        if failed:
            names = ", ".join(failed)
            raise SystemExit(f"error: {len(failed)} of {len(jobs)} jobs failed: {names}")


def expand_jobs(config: DictConfig, task: list[str], is_basic: bool) -> list[list[str]]:
    """Return the overrides of each job, or those at both ends of all ranges."""
    params = config.hydra.sweeper.params or {}  # of an experiment
    words = [f"{key}={value}" for key, value in params.items()]
    parsed = OverridesParser.create().parse_overrides([*words, *task])
    if is_basic:
        (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        return jobs
    ends = []
    for index in (0, -1):
        last_by_key = {word.get_key_element(): range_end(word, index) for word in parsed}
        ends.append(list(last_by_key.values()))
    return ends


def range_end(word: Override, index: int) -> str:
    """Return an override with the first (0) or the last (-1) value of its range or list."""
    value = word.value()
    if isinstance(value, IntervalSweep):
        return f"{word.get_key_element()}={(value.start, value.end)[index]}"
    if word.is_sweep_override():
        return f"{word.get_key_element()}={list(word.sweep_string_iterator())[index]}"
    return str(word.input_line)


def take_subdir(config: DictConfig, number: int) -> str:
    """Return the folder of a job in its sweep's, and remove Hydra's part from the job's config."""
    with open_dict(config):
        config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # ${hydra:...} reads it
        try:
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = None
        del config["hydra"]
    return name


def job_error(message: str, job: list[str]) -> SystemExit:
    """Return the error of a job that is not valid."""
    return SystemExit(f"error: {message}\nin this job of the sweep: {' '.join(job)}")
