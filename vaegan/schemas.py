"""The one file of the package that knows Hydra: the schemas of conf/, and what is said of a bad command."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from vaegan.config import GROUPS, ComponentConfig, did_you_mean, from_plain, require, to_plain
from vaegan.interrupts import Interrupted
from vaegan.launching import is_started_from_outside, num_processes
from vaegan.outcomes import finished_before
from vaegan.stages.other_runs import CompareRun, EvaluateRun, ExportRun, OptimizeRun
from vaegan.stages.runs import GANRun, PipelineRun, VAERun

RUNS = {
    "vae": VAERun,
    "gan": GANRun,
    "pipeline": PipelineRun,
    "evaluate": EvaluateRun,
    "export": ExportRun,
    "compare": CompareRun,
    "optimize": OptimizeRun,
}
PLUGINS = ("optuna", "joblib", "ray", "submitit_local", "submitit_slurm")  # of the extra `sweep`
Run = VAERun | GANRun | PipelineRun | EvaluateRun | ExportRun | CompareRun | OptimizeRun


def register() -> None:
    """Put every choice of every group, and every run, into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    for stage, run in RUNS.items():
        store.store(name=f"{stage}_run", node=run)
    for group, base in GROUPS.items():
        for name, component in base.choices.items():
            store.store(group=group, name=name, node=component.Config)


def typed(config: DictConfig) -> Run:
    """The run that a command line composed to.

    Raises:
        ValueError: A key that the schema does not have, or a value out of its range.
    """
    run_type = typing.cast(type[Run], OmegaConf.get_type(config))
    plain = typing.cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    return from_plain(run_type, plain)


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
        words = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]  # of an experiment
        typed_in: Any = OmegaConf.to_container(config.hydra.overrides)  # unresolved: ${...} in them is for a job
        overrides = OverridesParser.create().parse_overrides([*words, *typed_in["task"]])
        is_basic = config.hydra.sweeper._target_.endswith(".BasicSweeper")
        if is_basic:
            (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        else:
            jobs = [list({word.get_key_element(): end(word, last) for word in overrides}.values()) for last in (0, 1)]
        in_processes = set()
        for number, job in enumerate(jobs):
            try:
                words = [*typed_in["hydra"], *job]
                composed = hydra.compose(config.hydra.job.config_name, words, return_hydra_config=True)
                folder = Path(config.hydra.sweep.dir) / subdir(composed, number)
                run = typed(composed)
                in_processes.add(num_processes(run) > 1)
                require(len(in_processes) == 1, "trainer.devices", "1 in all jobs of a sweep, or in none", "both")
                if is_basic:
                    finished_before(folder, to_plain(run))
            except (HydraException, ValueError, AssertionError) as error:
                message = explain_null(job) if isinstance(error, AssertionError) else explain(error, job)
                raise SystemExit(f"error: {message}\nin this job of the sweep: {' '.join(job)}") from error
        Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)  # a study's data base may lie in it


class SummariseSweep(Callback):
    """Shows the jobs of a sweep at its end, however they were launched, and says which ones failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from vaegan.stages.sweep import summarise

        jobs = summarise(Path(config.hydra.sweep.dir))
        failed = [name for name, job in jobs.items() if job.status == "failed"]
        if failed:
            raise SystemExit(f"error: {len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")


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


is_reading = False  # whether errors are made readable


@contextmanager
def readable_errors() -> Iterator[None]:
    """What the user can mend becomes one message and exit status 1; HYDRA_FULL_ERROR=1 shows the traceback instead."""
    global is_reading
    if os.environ.get("HYDRA_FULL_ERROR") == "1" and not is_reading:
        yield
        return
    was_reading, is_reading = is_reading, True
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra shall raise, and not print for itself
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        message = explain(error, sys.argv[1:])
    except AssertionError as error:
        if "Unexpected type for root: NoneType" not in str(error):  # OmegaConf's words for a key of what is null
            raise
        message = explain_null(sys.argv[1:])
    except ChildProcessError as error:
        message = str(error)
    except OSError as error:
        message = f"{error}\nIf this is the run folder: set hydra.run.dir (hydra.sweep.dir in a sweep) to another one"
    except ValueError as error:
        message = str(error)
        if message in ("Record does not exist.", "No trials are completed yet."):  # optuna's words
            message = "every trial of the study failed; the log above and their outcome.json say why"
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    except Interrupted as end:
        print(end, file=sys.stderr)
        raise SystemExit(end.status) from end
    else:
        return
    finally:
        is_reading = was_reading
        if not is_reading:
            del os.environ["HYDRA_FULL_ERROR"]
    raise SystemExit(f"error: {printable(message)}\n(HYDRA_FULL_ERROR=1 shows where it was raised)")


def printable(message: str) -> str:
    """The message with escapes in the place of what a terminal would obey: it may name what stands in a file."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in message)


def explain(error: Exception, command: Sequence[str]) -> str:
    """What is wrong with a command line that does not compose, with the nearest known key or choice."""
    cause = "" if error.__cause__ is None else str(error.__cause__)
    message = str(error) if cause in str(error) else f"{error}\n{cause}"
    plugin = re.search(r"Could not (?:find|load) '(hydra/(?:sweeper|launcher))/(\w+)'", message)
    if plugin and plugin[2] in PLUGINS:
        return f"{plugin[1]}={plugin[2]} needs a plugin that is not installed: pip install 'vaegan[sweep]'"
    if choice := re.search(r"Could not find '([\w/]+)/([^/']+)'", message):
        known = re.findall(r"^\t(\w+)$", message, re.MULTILINE)
        return f"{choice[1]}={choice[2]}: no such choice.{did_you_mean(choice[2], known)} Known: {', '.join(known)}"
    if not (override := re.search(r"Could not override '([^']+)'", message)):
        return message
    key = override[1]
    stage = stage_of(command)
    owners = keys(RUNS.get(stage, PipelineRun))
    if key in owners:
        return f"{key} belongs to another choice: {owners[key]}"
    same_name = [known for known in owners if known.endswith(f".{key}")]
    nearest = f" Did you mean {' or '.join(same_name[:3])}?" if same_name else did_you_mean(key, owners)
    return f"unknown key {key} with stage={stage}.{nearest} python train.py stage={stage} --help lists all"


def explain_null(command: Sequence[str]) -> str:
    """What is wrong with a command line that sets a key of a part that it does not choose."""
    stage = stage_of(command)
    words = [word.split("=")[0].lstrip("+") for word in command]
    owners = keys(RUNS.get(stage, PipelineRun))
    for word in words:
        if word.split(".")[0] in set(GROUPS) - set(words) and word not in owners:
            return f"unknown key {word}, and its part is not chosen.{did_you_mean(word, owners)}"
        if (owner := owners.get(word)) and (group := owner.split("=")[0]) not in words:
            key = word.rpartition(".")[2]
            choices = [n for n, c in GROUPS[group].choices.items() if key in c.Config.__dataclass_fields__]
            return f"{word} is set, but no {group}: write {group}=... too, one of {', '.join(choices)}"
    return f"a key is set of a part that is null; python train.py stage={stage} --help shows which parts are"


def stage_of(command: Sequence[str]) -> str:
    """The stage that a command line names."""
    return next((word.removeprefix("stage=") for word in command if word.startswith("stage=")), "pipeline")


def keys(schema: type, owner: str = "") -> dict[str, str]:
    """Every dotted key of a schema, those of all choices included; with the choice that it belongs to, if any."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(schema):
        hint = typing.get_type_hints(schema)[field.name]
        found[field.name] = owner
        parts: list[tuple[Any, str]] = []
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, ComponentConfig):
                parts += [(c.Config, f"{part.base.group}={c.Config.name}") for c in part.base.choices.values()]
            elif dataclasses.is_dataclass(part):
                parts.append((part, owner))
        for inner, inner_owner in parts:
            found |= {f"{field.name}.{key}": who for key, who in keys(inner, inner_owner).items()}
    return found
