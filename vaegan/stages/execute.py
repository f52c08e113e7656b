"""Execute a run in as many processes as it requests devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vaegan.runtime.launch import launch
from vaegan.runtime.paths import display_path, shell_command


def execute(run: Any, output_dir: Path) -> Any:
    """Execute a run in one process per device and return the result of rank 0.

    Raises:
        Exception: as `vaegan.runtime.launch.launch`.
    """
    config = run.devices()
    num_devices, num_nodes = (1, 1) if config is None else (config.devices, config.num_nodes)
    resume_command = shell_command(f"python train.py resume={display_path(output_dir)}")
    return launch(lambda: run.execute(output_dir), num_devices, num_nodes, resume_command)


def num_processes(run: Any) -> int:
    """Return the number of processes that take part in a run."""
    config = run.devices()
    return 1 if config is None else config.devices * config.num_nodes
