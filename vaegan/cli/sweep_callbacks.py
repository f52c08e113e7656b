"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict

from vaegan.cli.errors import explain, explain_null
from vaegan.cli.registration import to_run_config
from vaegan.config import require, to_plain
from vaegan.runtime.launch import is_started_from_outside
from vaegan.stages.execute import num_processes
from vaegan.sweeps.outcome import finished_before


class CheckSweep(Callback):
    """Types every job of a sweep before the first one starts: a bad value in the third is said at once.

    So is a folder that holds a finished job of other settings.

    Of sweepers that choose their values as they go, it types the jobs at both ends of all ranges alone.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        if is_started_from_outside():
            raise SystemExit(
                "error: torchrun or SLURM has started several processes, and each would run this sweep with values of "
                "its own; start it once, and let trainer.devices=N start the processes of each job"
            )
        words = [
            f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()
        ]  # of an experiment
        typed_in: Any = OmegaConf.to_container(
            config.hydra.overrides
        )  # unresolved: ${...} in them is for a job
        overrides = OverridesParser.create().parse_overrides([*words, *typed_in["task"]])
        is_basic = config.hydra.sweeper._target_.endswith(".BasicSweeper")
        if is_basic:
            (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        else:
            jobs = [
                list({word.get_key_element(): end(word, last) for word in overrides}.values())
                for last in (0, 1)
            ]
        in_processes = set()
        for number, job in enumerate(jobs):
            try:
                words = [*typed_in["hydra"], *job]
                composed = hydra.compose(
                    config.hydra.job.config_name, words, return_hydra_config=True
                )
                folder = Path(config.hydra.sweep.dir) / subdir(composed, number)
                run = to_run_config(composed)
                in_processes.add(num_processes(run) > 1)
                require(
                    len(in_processes) == 1,
                    "trainer.devices",
                    "1 in all jobs of a sweep, or in none",
                    "both",
                )
                if is_basic:
                    finished_before(folder, to_plain(run))
            except (HydraException, ValueError, AssertionError) as error:
                message = (
                    explain_null(job) if isinstance(error, AssertionError) else explain(error, job)
                )
                raise SystemExit(
                    f"error: {message}\nin this job of the sweep: {' '.join(job)}"
                ) from error
        Path(config.hydra.sweep.dir).mkdir(
            parents=True, exist_ok=True
        )  # a study's data base may lie in it


class SummarizeSweep(Callback):
    """Shows the jobs of a sweep at its end, however they were launched, and says which ones failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from vaegan.sweeps.summary import summarize

        jobs = summarize(Path(config.hydra.sweep.dir))
        failed = [name for name, job in jobs.items() if job.status == "failed"]
        if failed:
            raise SystemExit(
                f"error: {len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}"
            )


def subdir(config: DictConfig, number: int) -> str:
    """Folder of a job in its sweep's; takes Hydra's own part out of the job's config."""
    with open_dict(config):
        config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # what ${hydra:...} looks at
        try:
            name = str(config.hydra.sweep.subdir)
        finally:
            HydraConfig.instance().cfg = None
        del config["hydra"]
    return name


def end(word: Override, last: int) -> str:
    """An override, of a range or a list of values with its first (0) or its last (1) one."""
    value = word.value()
    if isinstance(value, IntervalSweep):
        return f"{word.get_key_element()}={(value.start, value.end)[last]}"
    if word.is_sweep_override():
        return f"{word.get_key_element()}={list(word.sweep_string_iterator())[-last]}"
    return str(word.input_line)
