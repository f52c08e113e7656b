"""Run a stage: compose the config of the command line with Hydra and call the stage."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from vaegan.cli.errors import readable_errors
from vaegan.cli.output import set_up_log_handlers
from vaegan.cli.path_words import quote_paths
from vaegan.cli.plugins import find_plugins, load_plugins
from vaegan.cli.registration import register, to_run_config
from vaegan.cli.relocation import expand_dataset
from vaegan.cli.reservation import ending_reservation
from vaegan.cli.resume import expand_resume
from vaegan.cli.word_check import FOLDER_OPTIONS, check_words, move_options_to_end
from vaegan.runtime.out_of_memory import explain_out_of_memory
from vaegan.runtime.paths import absolute_path, shell_command
from vaegan.runtime.signals import Interrupted
from vaegan.stages.execute import execute
from vaegan.stages.stage_table import STAGES
from vaegan.sweeps.jobs import run_job

NO_OUTPUT_FOLDER = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=stdout")


def run(config: DictConfig) -> float | None:
    """Run a composed config, alone or as a job of a sweep; return the metric that a sweep gets."""
    set_up_log_handlers()
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    if job.mode == RunMode.MULTIRUN:
        return run_job(lambda: to_run_config(config), list(job.overrides.task), folder)
    run_config = to_run_config(config)
    advice = "a smaller latent_dim, smaller networks or smaller batches"
    with readable_errors(), suggest_restart(), ending_reservation(), explain_out_of_memory(advice):
        result = execute(run_config, folder)
    return None if result is None else result.metrics[run_config.sweep_metric or result.tag]


@contextmanager
def suggest_restart() -> Iterator[None]:
    """If a signal stops a run that cannot be resumed, say how to start it again."""
    try:
        yield
    except Interrupted as end:
        if end.has_command:
            raise
        command = shell_command(shlex.join(["python", "train.py", *sys.argv[1:]]))
        message = f"{end}. Start again with: {command}"
        raise Interrupted(end.signum, message, has_command=True) from end


def with_absolute_config_path(words: Sequence[str]) -> list[str]:
    """Return a command line in which the config folders are absolute paths."""
    absolute: list[str] = []
    for word in words:
        name, _, value = word.partition("=")
        if absolute and absolute[-1] in FOLDER_OPTIONS:
            word = absolute_path(word)
        elif name in FOLDER_OPTIONS and value:
            word = f"{name}={absolute_path(value)}"
        absolute.append(word)
    return absolute


def without_output_folder(words: Sequence[str]) -> list[str]:
    """Add overrides that keep Hydra from creating an output folder for a stage that only prints."""
    if any(f"stage={name}" in words for name, stage in STAGES.items() if not stage.writes_files):
        return [*words, *NO_OUTPUT_FOLDER]
    return list(words)


def prepare_words(words: Sequence[str], conf: Path) -> list[str]:
    """Load the plugins of a command line, check its words, and return them as Hydra reads them.

    Args:
        words: The command line.
        conf: Folder of the project's configs.

    Raises:
        ValueError: A plugin cannot be imported, a word is invalid, or a run or a checkpoint that
            the command line names cannot be read.
    """
    load_plugins(find_plugins(words, conf))
    register()
    words = quote_paths(words)
    check_words(words)
    return move_options_to_end(expand_dataset(expand_resume(words), conf))


def compose_and_run(conf: Path) -> None:
    """Run the command line in sys.argv.

    Args:
        conf: Folder of the project's configs.
    """
    with readable_errors():
        words = without_output_folder(prepare_words(sys.argv[1:], conf))
        sys.argv[1:] = with_absolute_config_path(words)
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(run)()
