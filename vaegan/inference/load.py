"""Load a trained model from a run folder, a checkpoint or an export."""

from __future__ import annotations

from pathlib import Path

import torch

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.inference.trained_gan import TrainedGAN
from vaegan.inference.trained_vae import TrainedVAE


def load(path: str | Path, device: str | torch.device = "cpu") -> TrainedVAE | TrainedGAN:
    """Load a trained model.

    Args:
        path: Run folder (its best checkpoint), checkpoint file, export, or "last" for the newest
            model below outputs/. In the folder of a pipeline, the VAE; add /gan for the GAN.
        device: Device to run on, such as "cpu" or "cuda".

    Returns:
        A `TrainedVAE` or a `TrainedGAN`, by the stage of the checkpoint.

    Raises:
        ValueError: There is no checkpoint at this path, it is damaged, or the device is not
            available.
    """
    return load_model(str(path), "path", device)


def load_model(path: str, key: str, device: str | torch.device) -> TrainedVAE | TrainedGAN:
    """Load a trained model; error messages name the setting `key` that gave the path."""
    checkpoint = load_checkpoint(find_checkpoint(path, key, ["vae", "gan"]))
    return build_model(checkpoint).to(device)


def build_model(checkpoint: Checkpoint) -> TrainedVAE | TrainedGAN:
    """Build the model of a checkpoint, on the CPU."""
    return TrainedVAE(checkpoint) if checkpoint.stage == "vae" else TrainedGAN(checkpoint)


def select_device(name: str) -> torch.device:
    """Return the device of a setting; "auto" prefers a GPU."""
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            expected = "auto, cpu, cuda, cuda:1 or mps"
            raise ValueError(f"device must be {expected}; got {name!r}") from error
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
