"""What the user reads at the end of a run."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from rich.console import Console

from vaegan.stages.runs import StageResult


def shown(path: Path) -> str:
    """Path as a shell takes it, relative to the current folder if it lies in it."""
    path, here = path.resolve(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def print_summary(title: str, results: list[StageResult], output_dir: Path, next_commands: list[str]) -> None:
    """Where the run is, its checkpoints, pictures and metrics, and what to type next."""
    rows = [("run folder", shown(output_dir))]
    for result in results:
        stage = result.folder.name
        rows.append((f"{stage} checkpoint", shown(result.checkpoint)))
        rows.append((f"{stage} pictures", shown(result.folder / "pictures")))
        rows += [(f"{stage} {tag}", f"{value:.3f}") for tag, value in sorted(result.metrics.items())]
    width = max(len(label) for label, _ in rows)
    uv = "uv run " if "UV" in os.environ else ""  # set by `uv run`: its programs are on no other path
    commands = [f"{uv}{command}" for command in (f"tensorboard --logdir {shown(output_dir)}", *next_commands)]
    lines = [f"  {label:<{width}}  {value}" for label, value in rows]
    console = Console(soft_wrap=True, highlight=False, markup=False)  # a path in one piece can be copied
    console.print("", title, *lines, "", "next", *(f"  {command}" for command in commands), sep="\n")
