"""Table of the stages, used by the command line, its help, sweeps and tests.

To add a stage, write a config class and a function, and add a line to STAGES below.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vaegan.stages.inference_configs import EncodeRun, RunsRun, SampleRun
from vaegan.stages.run_config import RunConfig
from vaegan.stages.tool_configs import CompareRun, EvaluateRun, ExportRun, PackRun
from vaegan.stages.training_runs import GANRun, PipelineRun, VAERun
from vaegan.training.stage_result import StageResult


class Stage(NamedTuple):
    """Config class and function of a stage."""

    config: type[RunConfig]
    function: str  # "module:function", imported on use; called with (config, output folder)
    writes_files: bool = True  # False if the stage only prints: no output folder is made


STAGES: dict[str, Stage] = {
    "vae": Stage(VAERun, "vaegan.stages.vae:train_vae"),
    "gan": Stage(GANRun, "vaegan.stages.gan:train_gan"),
    "pipeline": Stage(PipelineRun, "vaegan.stages.pipeline:train_pipeline"),
    "evaluate": Stage(EvaluateRun, "vaegan.stages.evaluate:evaluate"),
    "sample": Stage(SampleRun, "vaegan.stages.sample:sample"),
    "encode": Stage(EncodeRun, "vaegan.stages.encode:encode"),
    "export": Stage(ExportRun, "vaegan.stages.export:export"),
    "compare": Stage(CompareRun, "vaegan.stages.compare:compare"),
    "pack": Stage(PackRun, "vaegan.stages.pack:pack"),
    "runs": Stage(RunsRun, "vaegan.stages.runs:runs", writes_files=False),
}


def stage_of(run: RunConfig) -> str:
    """Return the name of the stage of a config."""
    return next(name for name, stage in STAGES.items() if stage.config is type(run))


def run_stage(run: RunConfig, output_dir: Path) -> StageResult | None:
    """Import the function of a config's stage and call it in this process."""
    module, _, name = STAGES[stage_of(run)].function.partition(":")
    function: Callable[[Any, Path], StageResult | None]
    function = getattr(importlib.import_module(module), name)
    return function(run.resolve_defaults(), output_dir)
