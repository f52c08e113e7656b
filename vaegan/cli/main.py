"""The command line: `vaegan`, `python -m vaegan` and `python train.py`, which are equivalent.

`--help`, `--version`, tab completion and the answer to a misspelled setting do not import torch.
"""

from __future__ import annotations

import os
import sys

from vaegan import __version__
from vaegan.cli.output import steady_output
from vaegan.runtime.bundled_files import bundled_folder
from vaegan.runtime.program import with_program_name

CONF = bundled_folder("conf")
HELP_OPTIONS = ("--help", "-h")
COMPLETION_OPTIONS = ("--shell-completion", "-sc")


def main() -> None:
    """Run the command line in sys.argv."""
    # Read when torch is imported. By default, waiting threads spin, which makes a step several
    # times slower if another process uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    words = sys.argv[1:]
    options = (*HELP_OPTIONS, *COMPLETION_OPTIONS, "--version")
    is_run = not any(option in words for option in options)
    with steady_output(is_reported=is_run):
        try:
            run_command(words)
        except KeyboardInterrupt as error:  # while modules are imported
            raise SystemExit(130) from error


def run_command(words: list[str]) -> None:
    """Run a command line."""
    if "--version" in words:
        print(f"vaegan {__version__}")
    elif any(option in words for option in COMPLETION_OPTIONS):
        print_completions(words)
    elif any(option in words for option in HELP_OPTIONS):
        print_help([word for word in words if word not in HELP_OPTIONS])
    else:
        reject_misspelling(words)
        from vaegan.cli.hydra_app import compose_and_run

        compose_and_run(CONF)


def reject_misspelling(words: list[str]) -> None:
    """Exit with a message if a key or a choice does not exist.

    A program that has imported torch is not checked: it may have registered its own components.
    """
    from vaegan.cli.error_text import SHOW_TRACEBACK, error_exit
    from vaegan.cli.spelling import check_spelling

    if "torch" in sys.modules or os.environ.get(SHOW_TRACEBACK) == "1":
        return
    try:
        check_spelling(words, CONF)
    except ValueError as error:
        raise error_exit(str(error)) from error


def print_completions(words: list[str]) -> None:
    """Print the script or the candidates of tab completion."""
    from vaegan.cli.completion import complete

    try:
        print(complete(words, CONF), flush=True)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def print_help(words: list[str]) -> None:
    """Print the help for a command line."""
    from vaegan.cli.help import help_text, settings_with_plugins

    try:
        text = help_text(settings_with_plugins(words, CONF), CONF, words)
    except ValueError as error:
        raise SystemExit(with_program_name(f"error: {error}")) from error
    print(with_program_name(text), flush=True)
