"""Default of `trainer.precision`."""

from __future__ import annotations

import logging
import os

import torch

from vaegan.runtime.collectives import is_rank_zero
from vaegan.training.trainer_config import TrainerConfig

log = logging.getLogger(__name__)


def has_amx() -> bool:
    """True if the CPU has AMX, with which matrix products in bfloat16 are several times faster.

    oneDNN, which computes them, ignores AMX if the environment variable ONEDNN_MAX_CPU_ISA names
    an older instruction set.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    return (limit == "DEFAULT" or "AMX" in limit) and torch.cpu._is_amx_tile_supported()


def choose_precision(config: TrainerConfig, is_natural: bool, stage: str) -> str:
    """Return `trainer.precision`, or its default for the data set and the device of the run.

    Args:
        config: Settings.
        is_natural: True for natural images (`ImageSource.IS_NATURAL`).
        stage: Name of the stage, for the log.
    """
    if config.precision is not None:
        return config.precision
    is_auto = config.accelerator == "auto" and not torch.accelerator.is_available()
    is_cpu = config.accelerator == "cpu" or is_auto
    if not (is_natural and is_cpu and has_amx()):
        return "32-true"
    if is_rank_zero():
        log.info("%s: trainer.precision=bf16-mixed, because this CPU has AMX", stage)
    return "bf16-mixed"
