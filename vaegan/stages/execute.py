"""Execute a run in one process per device."""

from __future__ import annotations

import shutil
from pathlib import Path

from vaegan.config import to_plain
from vaegan.runtime.denormals import denormals_as_zero
from vaegan.runtime.launch import launch
from vaegan.runtime.signals import Interrupted, catch_signals, interruptible
from vaegan.stages.folder_access import resume_command
from vaegan.stages.run_config import RunConfig, TrainingRun
from vaegan.stages.stage_table import run_stage, stage_of
from vaegan.training.stage_result import StageResult


def execute(run: RunConfig, output_dir: Path) -> StageResult | None:
    """Execute a run in one process per device; return the result of rank 0.

    If a signal stops a run that cannot be resumed, its unfinished results are removed, so that the
    same command can be repeated in the same folder.

    Raises:
        Exception: See `vaegan.runtime.launch.launch`.
    """
    results = output_dir / stage_of(run)
    is_removable = not isinstance(run, TrainingRun) and not results.exists()
    num_devices, num_nodes = device_counts(run)
    command = resume_command(output_dir, to_plain(run), run.plugins)

    def run_in_this_process() -> StageResult | None:
        with catch_signals(), interruptible(), denormals_as_zero():
            return run_stage(run, output_dir)

    try:
        return launch(run_in_this_process, num_devices, num_nodes, command)
    except Interrupted:
        if is_removable:
            shutil.rmtree(results, ignore_errors=True)
        raise


def device_counts(run: RunConfig) -> tuple[int, int]:
    """Return the number of devices per node and the number of nodes."""
    config = run.devices()
    return (1, 1) if config is None else (config.devices, config.num_nodes)


def num_processes(run: RunConfig) -> int:
    """Return the total number of processes of a run."""
    num_devices, num_nodes = device_counts(run)
    return num_devices * num_nodes
