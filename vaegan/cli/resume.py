"""Command lines: how `resume=FOLDER` becomes the command that began the run in that folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaegan.config import GROUPS, from_plain, to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.launch import is_started_from_outside
from vaegan.stages.training_runs import GANRun, PipelineRun, VAERun

TRAINING = {run.STAGE: run for run in (VAERun, GANRun, PipelineRun)}


def expand_resume(words: Sequence[str]) -> list[str]:
    """A command line whose `resume=FOLDER`, if there is one, is written out; words beside it take precedence.

    What the folder says is typed first: a config that was tampered with names nothing but choices that are known.

    Raises:
        ValueError: The folder holds no run that could be gone on with.
    """
    folders = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if not folders or folders[-1].lower() in ("true", "false"):
        return list(words)
    folder = Path(folders[-1].strip("'\""))
    if (folder / "multirun.yaml").exists():
        raise ValueError(
            f"resume={folder} is the folder of a sweep; repeat the sweep's command with hydra.sweep.dir={folder}"
        )
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"resume={folder} holds no run (config.json); give the folder of a stage=vae, stage=gan or pipeline run"
        )
    there = read_json(folder / "config.json")
    try:
        config = to_plain(from_plain(TRAINING[there["stage"]], there["config"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'} is damaged ({error!r})") from error
    given = [word for word in words if not word.startswith("resume=")]
    if f"stage={there['stage']}" not in given and any(word.startswith("stage=") for word in given):
        raise ValueError(f"{folder} holds a run of stage={there['stage']}; leave the stage out")
    keys = [word.split("=")[0].lstrip("+~") for word in given]
    began = [
        word for word in overrides(there["stage"], config) if not is_given(word.split("=")[0], keys)
    ]
    return [*began, f"hydra.run.dir={quoted(str(folder))}", "resume=true", *given]


def with_rank_overrides(words: Sequence[str]) -> list[str]:
    """The command line of a process that torchrun or SLURM has started: only the first one writes what Hydra writes."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    if not is_started_from_outside() or rank == "0":
        return list(words)
    return [*words, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def is_given(key: str, keys: Sequence[str]) -> bool:
    """Whether a setting, or the choice that it belongs to, is among the keys."""
    return any(key == known or (known in GROUPS and key.startswith(f"{known}.")) for known in keys)


def overrides(stage: str, config: Mapping[str, Any]) -> list[str]:
    """The words that compose to a plain config."""
    words = [f"stage={stage}"]
    for key, value in config.items():
        if key in GROUPS and value is not None:
            words.append(f"{key}={value['name']}")
            value = {name: inner for name, inner in value.items() if name != "name"}
        if key != "resume" and not (
            key in GROUPS and value is None
        ):  # which is the default where it may be null
            words += settings(key, value)
    return words


def settings(key: str, value: Any) -> list[str]:
    """Words that set a key, or all that is below it."""
    if isinstance(value, Mapping):
        return [word for name, inner in value.items() for word in settings(f"{key}.{name}", inner)]
    return [f"{key}={written(value)}"]


def written(value: Any) -> str:
    """A value as Hydra reads it."""
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, str):
        return quoted(value)
    return "null" if value is None else repr(value)


def quoted(text: str) -> str:
    """A string as Hydra reads it, with nothing in it that it would replace."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)(')", lambda match: match[1] * 2 + r"\'", text)
    return "'" + re.sub(r"(\\+)$", lambda match: match[1] * 2, text) + "'"
