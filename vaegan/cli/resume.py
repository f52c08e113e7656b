"""Expand `resume=FOLDER` to the command line that started the run in that folder.

The saved config is converted to command-line overrides. Further overrides, Hydra's logs and Hydra's
checks then work as in any other command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaegan.cli.path_words import read_path
from vaegan.cli.result_folder import find_run_folder
from vaegan.config import GROUPS, from_plain, to_plain
from vaegan.runtime.atomic_files import read_json
from vaegan.runtime.last_run import find_last_run
from vaegan.runtime.paths import LAST, path_override, quote_for_hydra
from vaegan.stages.folder_access import CONFIG_FILE
from vaegan.stages.run_config import TrainingRun
from vaegan.stages.stage_table import STAGES

OMITTED_KEYS = ("resume", "plugins")  # plugins: a run folder must not cause imports


def expand_resume(args: Sequence[str]) -> list[str]:
    """Replace `resume=FOLDER` with overrides from its config; other arguments take precedence.

    The saved config is validated first, so that a modified file can only select known choices.

    Raises:
        ValueError: The folder does not contain a run that can be resumed, or the arguments ask for
            another stage, another folder or a sweep.
    """
    folders = [arg.removeprefix("resume=") for arg in args if arg.startswith("resume=")]
    if not folders or folders[-1].lower() in ("true", "false"):
        return list(args)
    name = read_path(f"resume={folders[-1]}")
    folder = find_last_run("resume") if name == LAST else Path(os.path.expanduser(name))
    stage, config = read_run(folder)
    given = [arg for arg in args if not arg.startswith("resume=")]
    has_stage = any(arg.startswith("stage=") for arg in given)
    if has_stage and f"stage={stage}" not in given:
        raise ValueError(
            f"resume={folder} contains a run of stage={stage}; remove stage=... from the command"
        )
    check_output_folder(folder, given)
    given_keys = [arg.split("=")[0].lstrip("+~") for arg in given]
    saved = [
        arg for arg in to_overrides(stage, config) if not is_given(arg.split("=")[0], given_keys)
    ]
    return [*saved, f"hydra.run.dir={quote_for_hydra(str(folder))}", "resume=true", *given]


def check_output_folder(folder: Path, args: Sequence[str]) -> None:
    """Check that the arguments do not send the output of a resumed run to another folder.

    Raises:
        ValueError: `hydra.run.dir` is not the folder of the run, or the command is a sweep.
    """
    for arg in args:
        key, _, value = arg.lstrip("+").partition("=")
        mode = value.strip("'\" ").lower() if key == "hydra.mode" else ""
        if key in ("-m", "--multirun") or mode == "multirun":
            raise ValueError(f"resume={folder} resumes a single run; remove {arg}")
        if key == "hydra.run.dir":
            is_other = Path(os.path.expanduser(read_path(arg))).resolve() != folder.resolve()
        else:
            is_other = key in ("hydra", "hydra.run")
        if is_other:
            raise ValueError(
                f"resume={folder} continues the run in its own folder; remove {arg}. To continue "
                "it in another folder, copy the folder and resume the copy"
            )


def read_run(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the stage and the plain config of the run in a folder.

    Raises:
        ValueError: The folder does not contain a run that can be resumed, or its config is damaged.
    """
    if (folder / "multirun.yaml").exists():
        raise ValueError(
            f"resume={folder} is the folder of a sweep. To resume the sweep, repeat its command "
            f"with {path_override('hydra.sweep.dir', folder)}"
        )
    if not folder.exists():
        raise ValueError(f"resume={folder} does not exist")
    path = folder / CONFIG_FILE
    if not path.is_file():
        hint = "Set it to the folder of a stage=vae, stage=gan or stage=pipeline run"
        run_folder = find_run_folder(folder.resolve())
        if run_folder is not None:
            hint = f"It is part of a run; use {path_override('resume', run_folder)}"
        raise ValueError(
            f"resume={folder} does not contain a run: {CONFIG_FILE} is missing. {hint}"
        )
    saved = read_json(path)
    try:
        stage = saved["stage"]
        schema = STAGES[stage].config
        if not issubclass(schema, TrainingRun):
            raise KeyError(stage)
        return stage, to_plain(from_plain(schema, saved["config"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}); start a new run") from error
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; if an earlier version started this run, start a new one"
        ) from error


def is_given(key: str, given_keys: Sequence[str]) -> bool:
    """True if a key, or the component that it belongs to, is set by the given keys."""
    return any(
        key == given or (given in GROUPS and key.startswith(f"{given}.")) for given in given_keys
    )


def to_overrides(stage: str, config: Mapping[str, Any]) -> list[str]:
    """Return the command-line overrides that compose to a plain config."""
    overrides = [f"stage={stage}"]
    for key, value in config.items():
        if key in OMITTED_KEYS or (key in GROUPS and value is None):  # null is the default
            continue
        if key in GROUPS:
            overrides.append(f"{key}={value['name']}")
            value = {name: inner for name, inner in value.items() if name != "name"}
        overrides += assignments(key, value)
    return overrides


def assignments(key: str, value: Any) -> list[str]:
    """Return the overrides that set a key, or all keys below it."""
    if not isinstance(value, Mapping):
        return [f"{key}={format_value(value)}"]
    overrides = []
    for name, inner in value.items():
        overrides += assignments(f"{key}.{name}", inner)
    return overrides


def format_value(value: Any) -> str:
    """Return a value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(format_value, value))}]"
    if isinstance(value, str):
        return quote_for_hydra(value)
    return "null" if value is None else repr(value)
