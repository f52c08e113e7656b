"""Devices of a run: Lightning's options, checked before anything is trained."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from vaegan.runtime.collectives import is_rank_zero
from vaegan.training.trainer_config import DeviceConfig

IGNORED_WARNINGS = (  # advice of Lightning that does not apply here
    ".*recommended to use `self.log.*sync_dist=True.*",  # scores are those of all devices
    ".*Grad strides do not match bucket view.*",  # of channels last; little is lost
    ".*does not have many workers.*",  # batches are slices of memory
    ".*in eval mode at the start of training.*",  # the GAN's VAE is, on purpose
    ".*IterableDataset.*has `__len__` defined.*",  # litdata's is right
    ".*your dataloader is not resumable.*",  # its order is f(seed, epoch)
    "Checkpoint directory .* exists and is not empty",  # of a run that resumes
    ".*LeafSpec.*",  # Lightning's own use of torch
)


def device_options(config: DeviceConfig) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that say where to run."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    return {name: getattr(config, name) for name in names}


def check_devices(config: DeviceConfig) -> None:
    """Ask Lightning whether this machine has the devices, and connect the processes of the run.

    Raises:
        ValueError: They are unavailable.
    """
    silence_warnings()
    options = device_options(config)
    try:
        trainer = pl.Trainer(**options, logger=False, enable_checkpointing=False)
        if trainer.world_size > 1:
            trainer.strategy.setup_environment()
            if not is_rank_zero():
                logging.getLogger().setLevel(logging.ERROR)
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        raise ValueError(f"trainer: {options} are unavailable on this machine: {error}") from error


def disable_signal_handlers(trainer: pl.Trainer) -> None:
    """Leave signals to our own handlers.

    Lightning's save in the middle of a batch, and wait for other processes there.
    """
    setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010


def silence_warnings() -> None:
    """Silence Lightning's advice that does not apply here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
