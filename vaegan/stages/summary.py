"""What the user reads at the end of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vaegan.stages.runs import StageResult


def shown(path: Path) -> str:
    """Path as a shell takes it, relative to the current folder if it lies in it."""
    path, here = path.resolve(), Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def print_summary(title: str, results: list[StageResult], output_dir: Path, next_commands: list[str]) -> None:
    """Where the run is, its checkpoints, pictures and metrics, and what to type next."""
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    table.add_row("run folder", shown(output_dir))
    for result in results:
        stage = result.folder.name
        table.add_row(f"{stage} checkpoint", shown(result.checkpoint))
        table.add_row(f"{stage} pictures", shown(result.folder / "pictures"))
        for tag, value in sorted(result.metrics.items()):
            table.add_row(f"{stage} {tag}", f"{value:.3f}")
    console = Console(soft_wrap=True)
    console.print()
    console.print(table)
    console.print("\n[bold]next[/bold]")
    for command in [f"tensorboard --logdir {shown(output_dir)}", *next_commands]:
        console.print(f"  {command}", highlight=False, markup=False)
