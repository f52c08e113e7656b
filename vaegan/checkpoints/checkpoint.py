"""Checkpoints: plain data and tensors. Loading one neither executes nor imports anything.

In addition to Lightning's keys, a checkpoint contains

    "vaegan": {"format": 3, "stage": "vae" or "gan", "image_shape": [C, H, W],
               "run": plain config of the run,
               "vae": plain config of the VAE's run, so that a GAN checkpoint is self-contained,
               "vae_flops": floating-point operations spent on training the VAE so far,
               "class_names": names of the classes, if the data set has any}

An export (`vaegan.checkpoints.exports`) stores the same entry as JSON. It is accepted wherever a
checkpoint is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vaegan.checkpoints.exports import read_export
from vaegan.config import from_plain
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior, Latents
from vaegan.gan.noise_inputs import NoisyDecoder
from vaegan.images import ImageShape
from vaegan.networks.decoders import Decoder
from vaegan.runtime.safe_load import load_archive
from vaegan.vae.model import VAE, VAEConfig

FORMAT = 3
EARLIER_VERSION = "if an earlier version wrote the file, train again with this version"
VAE_PREFIX = "vae."
GENERATOR_PREFIX = "ema.module."
AGGREGATE_PREFIX = "aggregate."


@dataclass
class Checkpoint:
    """Content of a checkpoint file."""

    path: Path
    stage: str  # "vae" or "gan"
    image_shape: ImageShape
    run: dict[str, Any]  # plain config of the run that wrote it
    vae: dict[str, Any]  # plain config of the VAE's run
    vae_flops: float  # floating-point operations spent on training the VAE, up to its checkpoint
    state: dict[str, Tensor]  # state dict of the LightningModule
    epoch: int  # number of completed epochs
    class_names: list[str] | None = None  # classes of the training images, if they have any

    def __post_init__(self) -> None:
        values = self.state.values()
        is_valid = (
            self.stage in ("vae", "gan")
            and isinstance(self.run, dict)
            and isinstance(self.vae, dict)
            and (self.stage == "vae" or "feature_extractor" in self.run)
            and "latent_dim" in self.vae
            and isinstance(self.vae["dataset"], dict)
            and isinstance(self.vae["likelihood"], dict)
            and all(isinstance(name, str) for name in (*self.state, *(self.class_names or ())))
            and all(isinstance(value, Tensor) for value in values)
            and sum(value.nbytes for value in values) <= self.path.stat().st_size
        )
        if not is_valid:
            raise ValueError(f"{self.path} is not a vaegan checkpoint")

    def build_untrained_vae(self) -> VAE:
        """Build the VAE described by the file on the CPU, without loading its weights.

        Raises:
            ValueError: The config is invalid, or the model has more weights than the file.
        """
        try:
            check_model_size(self.vae, self.image_shape, self.state)
            return build_vae(self.vae, self.image_shape)
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{self.path} does not describe a vaegan model: {error}") from error

    def load_weights(self, module: nn.Module, prefix: str) -> None:
        """Load the entries of `state` that start with a prefix, and set the module to eval mode.

        Raises:
            ValueError: The weights do not fit the module, or are not finite.
        """
        names = [name for name in self.state if name.startswith(prefix)]
        weights = {name.removeprefix(prefix): self.state[name] for name in names}
        try:
            module.eval().load_state_dict(weights, strict=True)
        except RuntimeError as error:
            raise ValueError(
                f"the weights in {self.path} do not fit the model that the file describes "
                f"({EARLIER_VERSION}): {error}"
            ) from error
        for name in names:
            if not self.state[name].isfinite().all():
                raise ValueError(
                    f"{self.path} contains weights that are not finite ({name}): training "
                    "diverged; use another checkpoint"
                )

    def build_vae(self) -> VAE:
        """Build the VAE with its trained weights, in eval mode, on the CPU."""
        vae = self.build_untrained_vae()
        self.load_weights(vae, VAE_PREFIX)
        return vae

    def build_generator(self) -> Generator:
        """Build the EMA generator of a stage=gan checkpoint, in eval mode, on the CPU.

        Raises:
            ValueError: The checkpoint is of another stage, or its weights do not fit.
        """
        if self.stage != "gan":
            raise ValueError(
                f"{self.path} is a stage={self.stage} checkpoint; only stage=gan checkpoints have "
                "a generator"
            )
        vae = self.build_untrained_vae()
        decoder: Decoder | NoisyDecoder = vae.decoder
        if self.run.get("noise_inputs"):  # earlier versions omit it
            decoder = NoisyDecoder(vae.decoder, int(self.vae["latent_dim"]))
        generator = Generator(decoder, vae.likelihood)
        self.load_weights(generator, GENERATOR_PREFIX)
        return generator

    def build_latents(self) -> Latents:
        """Build the module that returns the latent distribution, in eval mode, on the CPU.

        Raises:
            ValueError: The weights do not fit, or are not finite.
        """
        vae = self.build_vae()
        scale_tril = self.state.get(f"{AGGREGATE_PREFIX}scale_tril")
        if scale_tril is None:
            return Latents(vae, None).eval()
        latent_dim = int(self.vae["latent_dim"])
        centers = self.state.get(f"{AGGREGATE_PREFIX}centers", torch.zeros(0, latent_dim))
        shapes = (scale_tril.shape, centers.shape)
        if shapes != ((latent_dim, latent_dim), (*centers.shape[:1], latent_dim)):
            raise ValueError(
                f"{self.path} is damaged: its aggregate posterior does not have "
                f"latent_dim={latent_dim}; use another copy"
            )
        aggregate = AggregatePosterior(latent_dim, len(centers))
        self.load_weights(aggregate, AGGREGATE_PREFIX)
        return Latents(vae, aggregate).eval()

    def training_flops(self) -> float:
        """Return the floating-point operations spent on training the VAE.

        This includes the steps after the best checkpoint if last.ckpt is in the same folder.
        """
        last = self.path.with_name("last.ckpt")
        if not last.is_file():
            return self.vae_flops
        return max(self.vae_flops, load_checkpoint(last).vae_flops)

    def weights_to_export(self) -> dict[str, Tensor]:
        """Return the entries of `state` that are needed for inference."""
        self.build_latents()  # raises if the weights do not fit
        prefixes = [VAE_PREFIX, AGGREGATE_PREFIX]
        if self.stage == "gan":
            self.build_generator()
            prefixes.append(GENERATOR_PREFIX)
        names = [name for name in self.state if name.startswith(tuple(prefixes))]
        return {name: self.state[name] for name in names}

    def describe(self) -> dict[str, Any]:
        """Return `header` with the total FLOPs of the VAE, and the epoch, for an export."""
        flops = self.training_flops()
        description = header(
            self.stage, self.image_shape, self.run, self.vae, flops, self.class_names
        )
        return description | {"epoch": self.epoch}


def header(
    stage: str,
    image_shape: ImageShape,
    run: dict[str, Any],
    vae: dict[str, Any],
    vae_flops: float = 0.0,
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the entry "vaegan" of a checkpoint."""
    entry = {"format": FORMAT, "stage": stage, "image_shape": list(image_shape)}
    if class_names is not None:
        entry["class_names"] = list(class_names)
    return entry | {"run": run, "vae": vae, "vae_flops": vae_flops}


def build_vae(run: Mapping[str, Any], image_shape: ImageShape) -> VAE:
    """Build an untrained VAE from a run's plain config; keys not in VAEConfig are ignored."""
    names = {field.name for field in fields(VAEConfig)}
    plain = {key: value for key, value in run.items() if key in names}
    for group in ("encoder", "decoder"):
        part = plain.get(group)
        if isinstance(part, Mapping) and needs_resampling(part):
            plain[group] = {**part, "resampling": earlier_resampling(part, image_shape)}
    return VAE(image_shape, from_plain(VAEConfig, plain))


def needs_resampling(network: Mapping[str, Any]) -> bool:
    """True for the config of an earlier version, which omitted `resampling` or set it to null."""
    if "resampling" in network:
        return network["resampling"] is None
    return network.get("name") in ("conv", "resnet")


def earlier_resampling(network: Mapping[str, Any], image_shape: ImageShape) -> str:
    """Return the resampling of a network whose config does not name it."""
    channels, *size = image_shape
    is_strided = "resampling" not in network or (channels == 1 and max(size) <= 32)
    return "strided" if is_strided else "bilinear"


def check_model_size(
    run: Mapping[str, Any], image_shape: ImageShape, state: Mapping[str, Tensor]
) -> None:
    """Check that the VAE of a plain config has no more weights than a state dict.

    A config of a few bytes can describe a model of any size. The model is therefore first built on
    the meta device, which allocates no memory, and only up to the number of weights in the file.

    Raises:
        ValueError: The model has more weights, or the config is invalid.
    """
    num_tensors = len(state)
    num_weights = sum(value.numel() for value in state.values())

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal num_tensors, num_weights
        if parameter is not None:
            num_tensors -= 1
            num_weights -= parameter.numel()
        if num_tensors < 0 or num_weights < 0:
            raise ValueError(f"the model has more weights than the file; {EARLIER_VERSION}")

    with torch.device("meta"), register_module_parameter_registration_hook(count):
        build_vae(run, image_shape)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint, or an export given the path of its .safetensors file.

    For a run folder, use `vaegan.load`, or `find_checkpoint` to get the path.

    Raises:
        ValueError: The file is missing, truncated, damaged, has another checkpoint format, is not
            from this project, or contains more than plain data and tensors.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a checkpoint in it, or use vaegan.load")
    if path.suffix == ".safetensors":
        description, state = read_export(path)
        return parse_checkpoint(path, description, state)
    content = load_archive(path)
    try:
        description = content["vaegan"] | {"epoch": content["epoch"] + 1}
        state = content["state_dict"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path} is not a vaegan checkpoint") from error
    return parse_checkpoint(path, description, state)


def parse_checkpoint(
    path: Path, description: Mapping[str, Any], state: dict[str, Tensor]
) -> Checkpoint:
    """Build a `Checkpoint` from a file's description (`header` and epoch) and state dict.

    Raises:
        ValueError: The checkpoint has another format, or is not from this project.
    """
    file_format = description.get("format")
    if file_format != FORMAT or type(file_format) is not int:
        raise ValueError(
            f"{path} has checkpoint format {file_format}, but this version reads format {FORMAT}; "
            "train again with this version"
        )
    try:
        channels, height, width = map(int, description["image_shape"])
        shape = (channels, height, width)
        stage, run, vae = (description[key] for key in ("stage", "run", "vae"))
        flops = float(description["vae_flops"])
        epoch = int(description["epoch"])
        names = description.get("class_names")
        return Checkpoint(path, stage, shape, run, vae, flops, state, epoch, names)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path} is not a vaegan checkpoint") from error
