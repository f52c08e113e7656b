"""Default of `trainer.precision`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vaegan.runtime.collectives import broadcast
from vaegan.training.trainer_config import TrainerConfig


def has_amx() -> bool:
    """True if this process can use AMX, which multiplies bfloat16 matrices several times faster.

    oneDNN, which multiplies them, ignores AMX if the environment variable ONEDNN_MAX_CPU_ISA names
    an older instruction set.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if limit != "DEFAULT" and "AMX" not in limit:
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    return torch.cpu._is_amx_tile_supported() and torch.cpu._init_amx()


def resolve_precision(
    config: TrainerConfig, is_natural: bool, earlier: Mapping[str, Any] | None
) -> TrainerConfig:
    """Return the config with the default of `precision` filled in, equal on all ranks.

    Args:
        config: Settings.
        is_natural: True for natural images (`ImageSource.IS_NATURAL`).
        earlier: Plain run of the training so far, whose precision is kept; None: it has not begun.
    """
    if config.precision is not None:
        return config
    if earlier is not None and earlier["trainer"]["precision"] is not None:
        return replace(config, precision=earlier["trainer"]["precision"])
    is_auto = config.accelerator == "auto" and not torch.accelerator.is_available()
    is_cpu = config.accelerator == "cpu" or is_auto
    is_fast = broadcast(is_natural and is_cpu and has_amx())
    return replace(config, precision="bf16-mixed" if is_fast else "32-true")
