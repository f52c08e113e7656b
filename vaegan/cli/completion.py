"""Tab completion for bash: keys, choices and paths, found without importing torch."""

from __future__ import annotations

import glob
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaegan.cli.help import config_summaries, prefixed, sections_of, settings_with_plugins
from vaegan.cli.plugins import config_dirs
from vaegan.cli.settings import PATH_KEYS, Settings

OPTIONS = ("--help", "--version", "--multirun", "--cfg", "--config-dir")
LAST_KEYS = ("ckpt", "vae_ckpt", "init", "resume")  # keys that accept `last`
BASH = """\
_vaegan_complete() {{
    local line=${{COMP_LINE:0:COMP_POINT}} word IFS=$'\\n'
    word=${{line##* }}
    COMPREPLY=()
    [[ $line =~ (train\\.py|vaegan)\\ .*$ ]] || return
    COMPREPLY=($(COMP_LINE=$line COMP_POINT=${{#line}} {program} -sc query=bash 2>/dev/null))
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then  # bash completes what is after =
        COMPREPLY=("${{COMPREPLY[@]#"${{word%%=*}}="}}")
    fi
    [[ ${{#COMPREPLY[@]}} == 1 && $COMPREPLY != *[=/.] ]] && compopt +o nospace 2>/dev/null
}}
complete -o nospace -o default -F _vaegan_complete vaegan python python3 uv
"""


def complete(words: Sequence[str], conf: Path) -> str:
    """Return the completion script (`-sc install=bash`) or the candidates (`-sc query=bash`).

    Args:
        words: The command line.
        conf: Folder of the project's configs.

    Raises:
        ValueError: The shell is not bash.
    """
    if "install=bash" in words:
        return BASH.format(program=program_command())
    if "query=bash" not in words:
        raise ValueError("tab completion supports only bash: -sc install=bash")
    line = os.environ.get("COMP_LINE", "")
    *before, word = line[: int(os.environ.get("COMP_POINT", len(line)))].split(" ")
    return "\n".join(sorted(set(find_candidates(before, word, conf))))


def program_command() -> str:
    """Return the command that runs this program in any folder, quoted for the shell."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "__main__.py":
        return shlex.join([sys.executable, "-m", "vaegan"])
    return shlex.join([sys.executable, script])


def find_candidates(before: Sequence[str], word: str, conf: Path) -> Iterator[str]:
    """Iterate over the completions of a word.

    Args:
        before: Words before the one to complete.
        word: Start of the word to complete, up to the cursor.
        conf: Folder of the project's configs.
    """
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        candidates = iter(OPTIONS)
    elif equals and key in PATH_KEYS:
        candidates = (f"{key}={path}" for path in find_paths(key, value))
    else:
        settings = settings_with_plugins(before, conf)
        candidates = find_settings(settings, before, key, [conf, *config_dirs(before)])
        if not equals:
            candidates = (candidate.partition("=")[0] + "=" for candidate in candidates)
    return (
        candidate for candidate in candidates if candidate.startswith(word) and candidate != word
    )


def find_settings(
    settings: Settings, before: Sequence[str], key: str, folders: Sequence[Path]
) -> Iterator[str]:
    """Iterate over `KEY=VALUE` for all keys of a stage; VALUE is empty if the choices are open."""
    stages = [word.removeprefix("stage=") for word in before if word.startswith("stage=")]
    stage = stages[-1] if stages and stages[-1] in settings.stages else "pipeline"
    yield from (f"stage={name}" for name in settings.stages)
    yield from ("hydra.run.dir=", "plugins=", "experiment=", "arm=")
    if key in ("experiment", "arm"):
        names = [name for folder in folders for name, _ in config_summaries(folder / key)]
        yield from (f"{key}={name}" for name in names)
    for section in sections_of(settings, stage):
        for one in prefixed(section, stage):
            values = ("true", "false") if one.default in ("true", "false") else ("",)
            yield from (f"{one.key}={value}" for value in values)
        for group in (settings.groups[name] for name in section.groups):
            yield from (f"{group.name}={choice.name}" for choice in group.choices)
            chosen = [choice for choice in group.choices if f"{group.name}={choice.name}" in before]
            for choice in chosen or group.choices:
                yield from (f"{one.key}=" for one in choice.settings)


def find_paths(key: str, start: str) -> Iterator[str]:
    """Iterate over the paths that start with `start`, and `last` for keys of a model or a run."""
    if key in LAST_KEYS:
        yield "last"
    folder, _, name = start.rpartition("/")
    head = start[: len(start) - len(name)]
    for path in Path(os.path.expanduser(head) or ".").glob(f"{glob.escape(name)}*"):
        is_hidden = path.name.startswith(".") and not name.startswith(".")
        if not is_hidden:
            yield f"{head}{path.name}{'/' * path.is_dir()}"
