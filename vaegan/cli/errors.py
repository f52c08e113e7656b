"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vaegan.cli.registration import RUNS
from vaegan.config import GROUPS, ComponentConfig, did_you_mean
from vaegan.runtime.signals import Interrupted
from vaegan.stages.training_runs import PipelineRun

PLUGINS = ("optuna", "joblib", "ray", "submitit_local", "submitit_slurm")  # of the extra `sweep`
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
        if "Unexpected type for root: NoneType" not in str(
            error
        ):  # OmegaConf's words for a key of what is null
            raise
        message = explain_null(sys.argv[1:])
    except ChildProcessError as error:
        message = str(error)
    except OSError as error:
        message = f"{error}\nIf this is the run folder: set hydra.run.dir (hydra.sweep.dir in a sweep) to another one"
    except ValueError as error:
        message = str(error)
        if message in ("Record does not exist.", "No trials are completed yet."):  # optuna's words
            message = (
                "every trial of the study failed; the log above and their outcome.json say why"
            )
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
    nearest = (
        f" Did you mean {' or '.join(same_name[:3])}?" if same_name else did_you_mean(key, owners)
    )
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
            choices = [
                n for n, c in GROUPS[group].choices.items() if key in c.Config.__dataclass_fields__
            ]
            return (
                f"{word} is set, but no {group}: write {group}=... too, one of {', '.join(choices)}"
            )
    return f"a key is set of a part that is null; python train.py stage={stage} --help shows which parts are"


def stage_of(command: Sequence[str]) -> str:
    """The stage that a command line names."""
    return next(
        (word.removeprefix("stage=") for word in command if word.startswith("stage=")), "pipeline"
    )


def keys(schema: type, owner: str = "") -> dict[str, str]:
    """Every dotted key of a schema, those of all choices included; with the choice that it belongs to, if any."""
    found: dict[str, str] = {}
    for field in dataclasses.fields(schema):
        hint = typing.get_type_hints(schema)[field.name]
        found[field.name] = owner
        parts: list[tuple[Any, str]] = []
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, ComponentConfig):
                parts += [
                    (c.Config, f"{part.base.group}={c.Config.name}")
                    for c in part.base.choices.values()
                ]
            elif dataclasses.is_dataclass(part):
                parts.append((part, owner))
        for inner, inner_owner in parts:
            found |= {f"{field.name}.{key}": who for key, who in keys(inner, inner_owner).items()}
    return found
