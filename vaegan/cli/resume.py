"""Command lines: how `resume=FOLDER` becomes the command that started the run in that folder.

What the folder says is typed again, so that words next to it, Hydra's records and its checks work
as in any other command.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaegan.config import GROUPS, from_plain, to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.launch import is_started_from_outside
from vaegan.stages.run_config import TrainingRun
from vaegan.stages.stage_table import STAGES

NOT_TYPED = ("resume", "plugins")  # a run folder must not name modules that are imported


def expand_resume(words: Sequence[str]) -> list[str]:
    """Return a command line with `resume=FOLDER` written out; words next to it take precedence.

    The content of the folder is parsed first: a config that was tampered with names nothing but
    known choices.

    Raises:
        ValueError: The folder holds no run that can be resumed.
    """
    folders = [word.removeprefix("resume=") for word in words if word.startswith("resume=")]
    if not folders or folders[-1].lower() in ("true", "false"):
        return list(words)
    folder = Path(folders[-1].strip("'\""))
    stage, config = read_run(folder)
    given = [word for word in words if not word.startswith("resume=")]
    has_stage = any(word.startswith("stage=") for word in given)
    if has_stage and f"stage={stage}" not in given:
        raise ValueError(f"{folder} holds a run of stage={stage}; leave the stage out")
    given_keys = [word.split("=")[0].lstrip("+~") for word in given]
    saved = [
        word for word in overrides(stage, config) if not is_given(word.split("=")[0], given_keys)
    ]
    return [*saved, f"hydra.run.dir={quote(str(folder))}", "resume=true", *given]


def read_run(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the stage and the plain config of the run in a folder.

    Raises:
        ValueError: It holds no run that can be resumed, or its config is damaged.
    """
    if (folder / "multirun.yaml").exists():
        raise ValueError(
            f"resume={folder} is the folder of a sweep; repeat the sweep's command with "
            f"hydra.sweep.dir={folder}"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"resume={folder} holds no run (config.json); give the folder of a stage=vae, "
            "stage=gan or pipeline run"
        )
    saved = read_json(path)
    try:
        stage = saved["stage"]
        schema = STAGES[stage].config
        if not issubclass(schema, TrainingRun):
            raise KeyError(stage)
        return stage, to_plain(from_plain(schema, saved["config"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r})") from error


def with_rank_overrides(words: Sequence[str]) -> list[str]:
    """Return the command line of a process started by torchrun or SLURM.

    Only rank 0 writes Hydra's files.
    """
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    if not is_started_from_outside() or rank == "0":
        return list(words)
    return [*words, "hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none"]


def is_given(key: str, given_keys: Sequence[str]) -> bool:
    """Return True if a setting, or the choice that it belongs to, is among the keys."""
    return any(
        key == given or (given in GROUPS and key.startswith(f"{given}.")) for given in given_keys
    )


def overrides(stage: str, config: Mapping[str, Any]) -> list[str]:
    """Return the words that compose to a plain config."""
    words = [f"stage={stage}"]
    for key, value in config.items():
        if key in NOT_TYPED or (key in GROUPS and value is None):  # null is the default there
            continue
        if key in GROUPS:
            words.append(f"{key}={value['name']}")
            value = {name: inner for name, inner in value.items() if name != "name"}
        words += assignments(key, value)
    return words


def assignments(key: str, value: Any) -> list[str]:
    """Return the words that set a key, or all keys below it."""
    if not isinstance(value, Mapping):
        return [f"{key}={format_value(value)}"]
    words = []
    for name, inner in value.items():
        words += assignments(f"{key}.{name}", inner)
    return words


def format_value(value: Any) -> str:
    """Return a value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, str):
        return quote(value)
    return "null" if value is None else repr(value)


def quote(text: str) -> str:
    """Return a string in Hydra's override grammar, quoted so that nothing in it is replaced."""
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    text = re.sub(r"(\\*)(')", lambda match: match[1] * 2 + r"\'", text)
    text = re.sub(r"(\\+)$", lambda match: match[1] * 2, text)
    return f"'{text}'"
