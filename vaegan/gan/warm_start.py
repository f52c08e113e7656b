"""Warm start: what a GAN takes over from a VAE, layer by layer, and what it does not.

A layer is a module with weights of its own, named as in the network's state dict and counted in the order of the
forward pass. Nothing is taken over in silence: layers are copied by name, all of them fit or an error names those that
do not, and a `Transfer` says what was copied.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from vaegan.config import require
from vaegan.gan.generator import Generator
from vaegan.vae.model import VAE, full_precision

log = logging.getLogger(__name__)
POWER_ITERATIONS = (
    15  # from which the normalization of copied weights starts, as torch does with fresh ones
)
PARTS = ("all", "first", "last", "none")


@dataclass
class WarmStartConfig:
    """What the GAN takes over from the VAE."""

    generator: str = (
        "all"  # layers of the VAE's decoder that the generator starts with: all, first, last, none
    )
    num_layers: int = 1  # how many with first and last
    discriminator: bool | None = (
        None  # whether it starts with all but the last layer of the VAE's encoder; null: if
    )
    # the generator starts warm and the two have the same architecture
    aggregate_posterior: bool = (
        False  # whether latents follow a normal fitted to the training images' latents
    )
    freeze_layers: int = 0  # first layers of the generator that do not learn for a while
    freeze_images: int = 0  # how long, in images from the generator's first step on
    reconstruction_weight: float = (
        0.0  # of -log p(x|z) per dimension, z ~ q(z|x), in the generator's loss
    )
    reconstruction_images: int = 100_000  # images in which that weight falls linearly to 0, from the generator's first step on

    def __post_init__(self) -> None:
        require(self.generator in PARTS, "generator", f"one of {', '.join(PARTS)}", self.generator)
        for key in ("num_layers", "reconstruction_images"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        for key in ("freeze_layers", "freeze_images", "reconstruction_weight"):
            require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        is_whole = (self.freeze_layers > 0) == (self.freeze_images > 0)
        expected = f"positive with freeze_layers={self.freeze_layers}, and 0 with none"
        require(is_whole, "freeze_images", expected, self.freeze_images)

    def reconstruction_weight_at(self, num_images: int) -> float:
        """Weight of the reconstruction after so many images since the generator's first step."""
        return self.reconstruction_weight * max(0.0, 1 - num_images / self.reconstruction_images)


class Transfer(NamedTuple):
    """What a network took over."""

    network: str
    source: str
    copied: list[str]  # layers
    fresh: list[str]  # layers
    num_copied: int  # weights
    num_weights: int

    def __str__(self) -> str:
        if not self.copied:
            return f"{self.network}: fresh weights"
        layers, share = len(self.copied) + len(self.fresh), self.num_copied / self.num_weights
        text = f"{self.network}: {len(self.copied)} of {layers} layers ({share:.1%} of the weights) from {self.source}"
        return text + (f"; fresh: {', '.join(self.fresh)}" if self.fresh else "")


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """Modules with weights of their own, by name, in order; one with normalized weights counts as one layer."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.parametrizations") for outer in found)
        if not inside and (
            next(module.parameters(recurse=False), None) is not None or is_parametrized(module)
        ):
            found[name] = module
    return found


def copy_layers(
    source: nn.Module, target: nn.Module, names: Sequence[str], what: tuple[str, str]
) -> Transfer:
    """Copy layers of the same name and shape from one network to another.

    Args:
        source: Network to copy from.
        target: Network to copy to.
        names: The layers.
        what: What to call target and source in messages: ("generator", "the VAE's decoder").

    Raises:
        ValueError: A layer is missing on one side, or has another shape there; nothing is copied then.
    """
    ours, theirs = layers(target), layers(source)
    shapes = {name: [_shapes(side.get(name)) for side in (ours, theirs)] for name in names}
    wrong = [
        f"{name} has {mine}, there {other}"
        for name, (mine, other) in shapes.items()
        if mine != other
    ]
    if wrong:
        raise ValueError(f"{what[0]} cannot start from {what[1]}: {'; '.join(wrong)}")
    for name in names:
        for key, value in theirs[name].named_parameters(recurse=False):
            _assign(ours[name], key, value.detach())
    sizes = {name: sum(p.numel() for p in layer.parameters()) for name, layer in ours.items()}
    fresh = [name for name in ours if name not in names]
    return Transfer(
        *what, list(names), fresh, sum(sizes[name] for name in names), sum(sizes.values())
    )


def _shapes(layer: nn.Module | None) -> str:
    """Shapes of a layer's weights, for a message."""
    names = ("weight", "bias")
    tensors = {name: getattr(layer, name, None) for name in names}
    found = [
        f"{name} {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if isinstance(tensor, Tensor)
    ]
    return " and ".join(found) or "no such layer"


def _assign(layer: nn.Module, key: str, value: Tensor) -> None:
    with torch.no_grad():
        if is_parametrized(layer, key):
            setattr(layer, key, value.clone())
            for _ in range(POWER_ITERATIONS):
                getattr(layer, key)  # of spectral normalization: each reading takes a step
        else:
            getattr(layer, key).copy_(value)


def start_generator(vae: VAE, fresh: VAE, config: WarmStartConfig) -> tuple[Generator, Transfer]:
    """Generator with layers of a trained VAE's decoder, the others as in a fresh VAE of the same architecture.

    Raises:
        ValueError: The decoder has fewer layers than the config wants.
    """
    names = list(layers(vae.decoder))
    num = config.num_layers
    fits = config.generator not in ("first", "last") or num <= len(names)
    require(
        fits,
        "warm_start.num_layers",
        f"at most the decoder's {len(names)} ({', '.join(names)})",
        num,
    )
    require(
        config.freeze_layers <= len(names),
        "warm_start.freeze_layers",
        f"at most the decoder's {len(names)} ({', '.join(names)})",
        config.freeze_layers,
    )
    chosen = {"all": names, "first": names[:num], "last": names[-num:], "none": []}[
        config.generator
    ]
    decoder = copy.deepcopy(fresh.decoder)
    transfer = copy_layers(vae.decoder, decoder, chosen, ("generator", "the VAE's decoder"))
    return Generator(decoder, copy.deepcopy((vae if chosen else fresh).likelihood)), transfer


def start_discriminator(vae: VAE, discriminator: nn.Module, config: WarmStartConfig) -> Transfer:
    """Copy all layers of the VAE's encoder but the last into a discriminator of the same architecture.

    Raises:
        ValueError: It has another architecture, and the config wants it to start warm.
    """
    names = list(layers(vae.encoder))[:-1]
    what = ("discriminator", "the VAE's encoder")
    if config.discriminator or (config.discriminator is None and config.generator != "none"):
        try:
            copy_layers(
                vae.encoder, copy.deepcopy(discriminator), names, what
            )  # shapes first, then activations
            check_same_layers(vae, discriminator)
            return copy_layers(vae.encoder, discriminator, names, what)
        except ValueError as error:
            if config.discriminator:
                raise
            log.info("%s", error)
    return copy_layers(vae.encoder, discriminator, [], what)


def check_same_layers(vae: VAE, discriminator: nn.Module) -> None:
    """The encoder's weights are of use only in the same order, and between the activations they were trained with.

    Raises:
        ValueError: The discriminator has other layers or activations.
    """
    what = "discriminator cannot start from the VAE's encoder: "
    ours, theirs = (list(layers(network)) for network in (discriminator, vae.encoder))
    if ours != theirs:
        raise ValueError(
            f"{what}its layers are {', '.join(ours)}, and there {', '.join(theirs)}; choose the same depth and "
            "normalization for discriminator and encoder"
        )
    ours, theirs = (_activations(network) for network in (discriminator, vae.encoder))
    if ours != theirs:
        names = (", ".join(sorted(set(found))) for found in (ours, theirs))
        raise ValueError(
            f"{what}between its layers are {next(names)}, and there {next(names)}; choose the same activation for "
            "discriminator and encoder: silu or leaky_relu"
        )


def _activations(network: nn.Module) -> list[str]:
    """Names of the classes of what has no weights, in order."""
    weighted = layers(network)
    leaves = {
        name: module for name, module in network.named_modules() if not list(module.children())
    }
    inside = tuple(f"{name}." for name in weighted)
    return [
        type(leaf).__name__
        for name, leaf in leaves.items()
        if name not in weighted and not name.startswith(inside)
    ]


def reconstruction_loss(vae: VAE, generator: Generator, images: Tensor) -> Tensor:
    """-log p(x|z) in nats per dimension, z ~ q(z|x) of the VAE's encoder and p the generator's: the anchor.

    Source: Larsen et al. 2016, arXiv:1512.09300, with the likelihood of pixels.
    """
    with torch.no_grad():
        target = vae.likelihood.target(images)
        z = vae.encode(target).sample()
    likelihood = generator.likelihood(full_precision(generator.decoder(z)))
    log_likelihood: Tensor = likelihood.log_prob(target)
    return -log_likelihood.mean() / images[0].numel()
