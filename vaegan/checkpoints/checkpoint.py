"""Checkpoints: plain data and tensors. Nothing in a file is executed or imported when it is read.

Beside Lightning's own keys a checkpoint holds

    "vaegan": {"format": 2, "stage": "vae" or "gan", "image_shape": [C, H, W], "run": the run's config, plain;
               "vae": the plain config of the VAE's run, so that a GAN's file stands alone;
               "vae_flops": floating-point operations that the VAE's training had cost until then}

An export (`vaegan.exports`) says the same in JSON, and is read wherever a checkpoint is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vaegan.checkpoints.exports import MODEL, read_export
from vaegan.config import from_plain
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior, Latents
from vaegan.images import ImageShape
from vaegan.runtime.safe_load import read_content
from vaegan.vae.model import VAE, VAEConfig

FORMAT = 3
SLACK = 10_000_000  # numbers that building a model may take beside its weights
NOT_OURS = f"{{}} is no checkpoint of this project in format {FORMAT}"


@dataclass
class Checkpoint:
    """What a checkpoint file holds."""

    path: Path
    stage: str  # "vae" or "gan"
    image_shape: ImageShape
    run: dict[str, Any]  # config of the run that wrote it, plain
    vae: dict[str, Any]  # config of the VAE's run, plain
    vae_flops: (
        float  # floating-point operations that the VAE's training had cost up to its checkpoint
    )
    state: dict[str, Tensor]  # of the LightningModule
    epoch: int  # finished ones

    def build_fresh(self) -> VAE:
        """A VAE as the file describes it.

        Raises:
            ValueError: There is no such model, or it would be larger than the weights in the file.
        """
        try:
            with Budget(2 * sum(value.numel() for value in self.state.values()) + SLACK):
                return build_vae(self.vae, self.image_shape)
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{self.path} describes no model of this project: {error}") from error

    def build_vae(self) -> VAE:
        """The VAE with its trained weights, in eval mode, on the CPU."""
        vae = self.build_fresh()
        load_state(vae, self.state, "vae.", self.path)
        return vae.eval()

    def build_generator(self) -> Generator:
        """The moving average of a stage=gan generator, in eval mode, on the CPU."""
        if self.stage != "gan":
            raise ValueError(
                f"{self.path} is a stage={self.stage} checkpoint; only a stage=gan one has a generator"
            )
        vae = self.build_fresh()
        generator = Generator(vae.decoder, vae.likelihood)
        load_state(generator, self.state, "ema.module.", self.path)
        return generator.eval()

    def training_flops(self) -> float:
        """Floating-point operations of the VAE's whole training: up to its last checkpoint, where that lies beside."""
        last = self.path.with_name("last.ckpt")
        return (
            max(self.vae_flops, load_checkpoint(last).vae_flops)
            if last.is_file()
            else self.vae_flops
        )

    def build_latents(self) -> Latents:
        """What the generator's latents are drawn from, on the CPU: call it for their distribution."""
        vae, aggregate = self.build_vae(), None
        if "aggregate.scale_tril" in self.state:
            num = int(self.vae["latent_dim"])
            if self.state["aggregate.scale_tril"].shape != (num, num):
                raise ValueError(
                    f"{self.path}: its aggregate posterior has not latent_dim={num}; use another copy"
                )
            aggregate = AggregatePosterior(num)
            load_state(aggregate, self.state, "aggregate.", self.path)
        return Latents(vae, aggregate).eval()

    def trained(self) -> dict[str, Tensor]:
        """The weights of what this file is for, under their names in `state`, without those that only trained it."""
        if self.stage == "vae":
            return prefixed(self.build_vae(), "vae.")
        latents = self.build_latents()
        tensors = prefixed(latents.vae, "vae.") | prefixed(self.build_generator(), "ema.module.")
        return tensors | (
            prefixed(latents.aggregate, "aggregate.") if latents.aggregate is not None else {}
        )

    def description(self) -> dict[str, Any]:
        """What an export says of itself: as `header`, with the cost of the VAE's whole training."""
        head = header(self.stage, self.image_shape, self.run, self.vae, self.training_flops())
        return head | {"epoch": self.epoch}


class Budget(TorchDispatchMode):
    """Lets only so many numbers be allocated: a config describes a model of any size in a few bytes."""

    def __init__(self, numbers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.left = numbers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        size = args[0] if args else None
        if isinstance(size, list) and all(
            isinstance(length, int) for length in size
        ):  # of a new tensor
            self.left -= math.prod(size)
            if self.left < 0:
                raise ValueError("it would be larger than the weights in the file")
        return func(*args, **(kwargs or {}))


def header(
    stage: str,
    image_shape: ImageShape,
    run: dict[str, Any],
    vae: dict[str, Any],
    vae_flops: float = 0.0,
) -> dict[str, Any]:
    """What stands under "vaegan" in a checkpoint."""
    shape = list(image_shape)
    return {
        "format": FORMAT,
        "stage": stage,
        "image_shape": shape,
        "run": run,
        "vae": vae,
        "vae_flops": vae_flops,
    }


def build_vae(run: Mapping[str, Any], image_shape: ImageShape) -> VAE:
    """VAE with fresh weights from the plain config of a run; keys that do not belong to the model are passed over."""
    names = {field.name for field in fields(VAEConfig)}
    return VAE(
        image_shape,
        from_plain(VAEConfig, {key: value for key, value in run.items() if key in names}),
    )


def prefixed(module: torch.nn.Module, prefix: str) -> dict[str, Tensor]:
    """State dict of a module, as it stands in that of the LightningModule around it."""
    return {f"{prefix}{key}": value for key, value in module.state_dict().items()}


def load_state(
    module: torch.nn.Module, state: Mapping[str, Tensor], prefix: str, path: Path
) -> None:
    """Load the entries of a state dict that begin with the prefix; all must fit."""
    part = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    try:
        module.load_state_dict(part, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit the model that it describes: {error}"
        ) from error
    broken = [key for key, value in part.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"{path} holds weights that are not finite ({broken[0]}): its training diverged"
        )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of this project, or an export of one, by the path of its tensors.

    Raises:
        ValueError: The file is missing, cut short, damaged, holds more than plain data and tensors, or is not ours.
    """
    if path.suffix == ".safetensors":
        return checked(path, *read_export(path))
    content = read_content(path)
    try:
        return checked(
            path, content["vaegan"] | {"epoch": content["epoch"] + 1}, content["state_dict"]
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(NOT_OURS.format(path)) from error


def checked(path: Path, head: Mapping[str, Any], state: dict[str, Tensor]) -> Checkpoint:
    """A checkpoint from what a file says of itself, and its tensors.

    Raises:
        ValueError: It is not ours.
    """
    try:
        channels, height, width = map(int, head["image_shape"])
        stage, run, vae = head["stage"], head["run"], head["vae"]
        flops, epoch = float(head["vae_flops"]), int(head["epoch"])
        is_ours = head["format"] == FORMAT and "latent_dim" in vae
        is_ours = (
            is_ours and isinstance(vae["dataset"], dict) and isinstance(vae["likelihood"], dict)
        )
        is_ours = (
            is_ours and {"vae": set(), "gan": {"feature_extractor"}}[stage] <= dict(run).keys()
        )
        is_ours = is_ours and all(
            isinstance(key, str) and isinstance(state[key], Tensor) for key in state
        )
        is_ours = is_ours and sum(value.nbytes for value in state.values()) <= path.stat().st_size
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
    for folder in (
        given,
        given / "checkpoints",
        *(given / stage / "checkpoints" for stage in stages),
    ):
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
