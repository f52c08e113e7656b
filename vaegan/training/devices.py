"""Devices of a run: Lightning options that are checked before training starts."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException

from vaegan.config import require
from vaegan.runtime.collectives import is_rank_zero
from vaegan.training.trainer_config import DeviceConfig, TrainerConfig

IGNORED_WARNINGS = (  # Lightning warnings that do not apply here
    ".*recommended to use `self.log.*sync_dist=True.*",  # scores already cover all devices
    ".*Grad strides do not match bucket view.*",  # caused by channels_last; the cost is small
    ".*does not have many workers.*",  # batches are slices of an array in memory
    ".*in eval mode at the start of training.*",  # intended: the GAN keeps its VAE in eval mode
    ".*IterableDataset.*has `__len__` defined.*",  # litdata's length is correct
    ".*your dataloader is not resumable.*",  # the data order is a function of (seed, epoch)
    "Checkpoint directory .* exists and is not empty",  # expected when a run is resumed
    ".*LeafSpec.*",  # raised by Lightning's own use of torch
    ".*number of training batches.*smaller than the logging interval.*",  # it spans epochs
    "The .grad attribute of a Tensor that is not a leaf.*",  # raised by torch.compile itself
)


def cluster_environment() -> ClusterEnvironment:
    """Return the launcher that started this process, as Lightning would detect it, but never MPI.

    Lightning initializes MPI wherever mpi4py is installed, which can hang outside `mpirun`.
    """
    for environment in (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment):
        if environment.detect():
            return environment()
    return LightningEnvironment()


def device_options(config: DeviceConfig) -> dict[str, Any]:
    """Return the device arguments of Lightning's Trainer."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    return {name: getattr(config, name) for name in names}


def set_up_devices(config: DeviceConfig) -> torch.device:
    """Check that the devices are available, and initialize the process group of the run.

    Returns:
        The device of this process.

    Raises:
        ValueError: The devices are unavailable on this machine.
    """
    silence_warnings()
    if config.accelerator == "cpu" or torch.cuda.device_count() == 0:
        # Lightning sets it to 1. Each optimizer step then queries the driver, which takes 0.2 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    options = device_options(config)
    try:
        trainer = pl.Trainer(
            **options,
            logger=False,
            enable_checkpointing=False,
            plugins=[cluster_environment()],
        )
        if trainer.world_size > 1:
            trainer.strategy.setup_environment()
            if not is_rank_zero():
                logging.getLogger().setLevel(logging.ERROR)
        device = trainer.strategy.root_device
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"trainer: the devices {options} are unavailable on this machine: {error}. Change "
            "trainer.accelerator, trainer.devices or trainer.strategy"
        ) from error
    if isinstance(config, TrainerConfig) and config.cuda_graphs:
        expected = f"false on a device that is not an NVIDIA GPU ({device})"
        require(is_nvidia(device), "trainer.cuda_graphs", expected, True)
    return device


def is_nvidia(device: torch.device) -> bool:
    """True for an NVIDIA GPU. AMD GPUs have the device type cuda, too."""
    return device.type == "cuda" and torch.version.hip is None


def disable_signal_handlers(trainer: pl.Trainer) -> None:
    """Disable Lightning's signal handlers, so that only those of this package act.

    Lightning's handlers save a checkpoint in the middle of a batch and wait there for the other
    processes. Its training loop also broadcasts a flag of the handlers before every batch and
    reads it back from the device.
    """
    setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010
    setattr(trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor", lambda: None)  # noqa: B010


def silence_warnings() -> None:
    """Silence the Lightning warnings that do not apply here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.accelerators.cuda").setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message)
