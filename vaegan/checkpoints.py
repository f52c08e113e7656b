"""Checkpoints: plain data and tensors. Nothing in a file is executed or imported when it is read.

Beside Lightning's own keys a checkpoint holds

    "vaegan": {"format": 2, "stage": "vae" or "gan", "image_shape": [C, H, W], "run": the run's config, plain;
               "vae": the plain config of the VAE's run, so that a GAN's file stands alone;
               "vae_flops": floating-point operations that the VAE's training had cost until then}

An export (`vaegan.exports`) says the same in JSON, and is read wherever a checkpoint is.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaegan.config import from_plain
from vaegan.exports import MODEL, read_export
from vaegan.images import ImageShape
from vaegan.models import VAE, Generator, VAEConfig
from vaegan.warm_start import AggregatePosterior, Latents

FORMAT = 2
NOT_OURS = f"{{}} is no checkpoint of this project in format {FORMAT}"


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    stage: str  # "vae" or "gan"
    image_shape: ImageShape
    run: dict[str, Any]  # config of the run that wrote it, plain
    vae: dict[str, Any]  # config of the VAE's run, plain
    vae_flops: float  # floating-point operations that the VAE's training had cost up to its checkpoint
    state: dict[str, Tensor]  # of the LightningModule
    epoch: int  # finished ones

    def build_vae(self) -> VAE:
        """The VAE with its trained weights, in eval mode, on the CPU."""
        vae = build_vae(self.vae, self.image_shape)
        load_state(vae, self.state, "vae.", self.path)
        return vae.eval()

    def build_generator(self) -> Generator:
        """The moving average of a stage=gan generator, in eval mode, on the CPU."""
        if self.stage != "gan":
            raise ValueError(f"{self.path} is a stage={self.stage} checkpoint; only a stage=gan one has a generator")
        vae = build_vae(self.vae, self.image_shape)
        generator = Generator(vae.decoder, vae.likelihood)
        load_state(generator, self.state, "moving_average.module.", self.path)
        return generator.eval()

    def training_flops(self) -> float:
        """Floating-point operations of the VAE's whole training: up to its last checkpoint, where that lies beside."""
        last = self.path.with_name("last.ckpt")
        return max(self.vae_flops, load_checkpoint(last).vae_flops) if last.is_file() else self.vae_flops

    def build_latents(self) -> Latents:
        """What the generator's latents are drawn from, on the CPU: call it for their distribution."""
        aggregate = None
        if any(key.startswith("aggregate.") for key in self.state):
            aggregate = AggregatePosterior(int(self.vae["latent_dim"]))
            load_state(aggregate, self.state, "aggregate.", self.path)
        return Latents(self.build_vae(), aggregate).eval()

    def trained(self) -> dict[str, Tensor]:
        """The weights of what this file is for, under their names in `state`, without those that only trained it."""
        if self.stage == "vae":
            return prefixed(self.build_vae(), "vae.")
        latents = self.build_latents()
        tensors = prefixed(latents.vae, "vae.") | prefixed(self.build_generator(), "moving_average.module.")
        return tensors | (prefixed(latents.aggregate, "aggregate.") if latents.aggregate is not None else {})

    def description(self) -> dict[str, Any]:
        """What an export says of itself: as `header`, with the cost of the VAE's whole training."""
        head = header(self.stage, self.image_shape, self.run, self.vae, self.training_flops())
        return head | {"epoch": self.epoch}


def header(
    stage: str, image_shape: ImageShape, run: dict[str, Any], vae: dict[str, Any], vae_flops: float = 0.0
) -> dict[str, Any]:
    """What stands under "vaegan" in a checkpoint."""
    shape = list(image_shape)
    return {"format": FORMAT, "stage": stage, "image_shape": shape, "run": run, "vae": vae, "vae_flops": vae_flops}


def build_vae(run: Mapping[str, Any], image_shape: ImageShape) -> VAE:
    """VAE with fresh weights from the plain config of a run; keys that do not belong to the model are passed over."""
    names = {field.name for field in fields(VAEConfig)}
    return VAE(from_plain(VAEConfig, {key: value for key, value in run.items() if key in names}), image_shape)


def prefixed(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """State dict of a module, as it stands in that of the LightningModule around it."""
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


def load_state(module: torch.nn.Module, state: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Load the entries of a state dict that begin with the prefix; all must fit."""
    part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    try:
        module.load_state_dict(part, strict=True)
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit the model that it describes: {error}") from error
    broken = [key for key, value in part.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds weights that are not finite ({broken[0]}): its training diverged")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this project, or an export of one, by the path of its tensors.

    Raises:
        ValueError: The file is missing, cut short, damaged, holds more than plain data and tensors, or is not ours.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        return checked(path, *read_export(path))
    content = read_archive(path)
    try:
        return checked(path, content["vaegan"] | {"epoch": content["epoch"] + 1}, content["state_dict"])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(NOT_OURS.format(path)) from error


def read_archive(path: Path) -> Any:
    """What torch.save wrote: plain data and tensors.

    Raises:
        ValueError: as `load_checkpoint`.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds more than plain data and tensors, or is no checkpoint. "
            "Nothing in it was executed"
        ) from error
    except Exception as error:  # a flipped bit can raise almost anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is cut short or damaged ({reason}); use another copy") from error


def checked(path: Path, head: Mapping[str, Any], state: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint from what a file says of itself, and its tensors.

    Raises:
        ValueError: It is not ours.
    """
    try:
        channels, height, width = map(int, head["image_shape"])
        stage, run, vae = head["stage"], head["run"], head["vae"]
        flops, epoch = float(head["vae_flops"]), int(head["epoch"])
        is_ours = head["format"] == FORMAT and {"latent_dim", "dataset", "likelihood"} <= dict(vae).keys()
        is_ours = is_ours and {"vae": set(), "gan": {"features"}}[stage] <= dict(run).keys()
        is_ours = is_ours and all(isinstance(key, str) and isinstance(state[key], Tensor) for key in state)
    except (KeyError, TypeError, ValueError, OverflowError):
        is_ours = False
    if not is_ours:
        raise ValueError(NOT_OURS.format(path))
    return Checkpoint(path, stage, (channels, height, width), run, vae, flops, state, epoch)


def find_checkpoint(path: str, key: str, stages: Sequence[str]) -> Path:
    """The checkpoint file that a path means: a file, or the best one of a run folder. `key` is what the user typed.

    A folder that holds several of the stages means the first of them.

    Raises:
        ValueError: There is none, or the path is a URL.
    """
    if "://" in path:
        raise ValueError(f"{key}={path}: URLs are refused; download the file and give its path")
    given = Path(path).expanduser()
    if given.is_file():
        return given
    for folder in (given, given / "checkpoints", *(given / stage / "checkpoints" for stage in stages)):
        if (folder / "best.ckpt").is_file():
            return folder / "best.ckpt"
    for folder in (given, given / "export"):
        if (folder / MODEL).is_file():
            return folder / MODEL
    wanted = f"{' or '.join(stages)}/checkpoints/best.ckpt"
    what = f"has no checkpoint ({wanted})" if given.is_dir() else "does not exist"
    raise ValueError(
        f"{key}={path} {what}; give the folder of a stage={' or stage='.join(stages)} run, its .ckpt file "
        "or an export of it. To make one: python train.py stage=vae"
    )


def load_vae_checkpoint(path: str, key: str) -> Checkpoint:
    """The stage=vae checkpoint that a path means. `key` is what the user typed.

    Raises:
        ValueError: as `find_checkpoint` and `load_checkpoint`; also if it is a GAN's.
    """
    checkpoint = load_checkpoint(find_checkpoint(path, key, ["vae"]))
    if checkpoint.stage != "vae":
        raise ValueError(
            f"{key}={path} is a stage={checkpoint.stage} checkpoint; give the stage=vae one that it started from"
        )
    return checkpoint
