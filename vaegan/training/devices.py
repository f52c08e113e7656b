"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException

from vaegan.runtime.collectives import is_rank_zero
from vaegan.training.trainer_config import DeviceConfig

log = logging.getLogger(__name__)


def device_options(config: DeviceConfig) -> dict[str, Any]:
    """Where to train, for Lightning's Trainer."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    return {name: getattr(config, name) for name in names}


def check_devices(config: DeviceConfig) -> None:
    """Ask Lightning whether this machine has what the config wants, and let the processes of a run find each other.

    Raises:
        ValueError: It has not.
    """
    quiet()
    try:
        trainer = pl.Trainer(**device_options(config), logger=False, enable_checkpointing=False)
        if trainer.world_size > 1:
            trainer.strategy.setup_environment()
            if not is_rank_zero():
                logging.getLogger().setLevel(logging.ERROR)
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"trainer: {device_options(config)} cannot be had on this machine: {error}"
        ) from error


def keep_signals(trainer: pl.Trainer) -> None:
    """Leave signals to our handlers: Lightning's save in the middle of a batch, and wait for other processes there."""
    setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010


def quiet() -> None:
    """Silence Lightning's advice that does not hold here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", ".*recommended to use `self.log.*sync_dist=True.*"
    )  # scores are of all devices
    warnings.filterwarnings(
        "ignore", ".*Grad strides do not match bucket view.*"
    )  # of channels last; little is lost
    warnings.filterwarnings(
        "ignore", ".*does not have many workers.*"
    )  # batches are slices of memory
    warnings.filterwarnings(
        "ignore", ".*in eval mode at the start of training.*"
    )  # the GAN's VAE is, on purpose
    warnings.filterwarnings(
        "ignore", ".*IterableDataset.*has `__len__` defined.*"
    )  # litdata's is right
    warnings.filterwarnings(
        "ignore", ".*your dataloader is not resumable.*"
    )  # its order is f(seed, epoch)
    warnings.filterwarnings(
        "ignore", "Checkpoint directory .* exists and is not empty"
    )  # a run that goes on
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch
