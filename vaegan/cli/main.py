"""The command line: `python train.py`. `--help` and `--version` do not import torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vaegan import __version__

CONF = Path(__file__).parents[2] / "conf"
HELP_OPTIONS = ("--help", "-h")


def main() -> None:
    """Run the command line in sys.argv."""
    words = sys.argv[1:]
    if "--version" in words:
        print(f"vaegan {__version__}")
    elif any(option in words for option in HELP_OPTIONS):
        print_help([word for word in words if word not in HELP_OPTIONS])
    else:
        from vaegan.cli.hydra_app import compose_and_run

        compose_and_run(CONF)


def print_help(words: list[str]) -> None:
    """Print the help for a command line."""
    from vaegan.cli.help import help_text, settings_with_plugins

    try:
        text = help_text(settings_with_plugins(words, CONF), CONF, words)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
