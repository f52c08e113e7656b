"""Warm start: how a GAN's generator and discriminator copy layers from a VAE.

Nothing is copied silently: a `Transfer` lists the copied and the fresh layers. A layer is a module
with weights of its own, named as in the network's state dict, in the order of registration.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from vaegan.config import require
from vaegan.gan.generator import Generator
from vaegan.networks.discriminators import Discriminator
from vaegan.networks.trunks import Trunk
from vaegan.vae.model import VAE

log = logging.getLogger(__name__)
LAYER_CHOICES = ("all", "first", "last", "none")


@dataclass
class WarmStartConfig:
    """Layers and latents that the GAN takes over from the VAE."""

    # layers of the VAE's decoder that the generator starts from: all, first, last, none
    generator: str = "all"
    num_layers: int = 1  # number of layers with first and last
    # true: the discriminator starts from the trunk of the VAE's encoder; null: if the generator
    # starts warm and the two have the same architecture
    discriminator: bool | None = None
    # true: latents are drawn from a normal fitted to the training images' latents
    aggregate_posterior: bool = False
    freeze_layers: int = 0  # first layers of the generator to freeze
    freeze_images: int = 0  # images, from the generator's first step on, for which they are frozen
    # weight of -log p(x|z) per dimension, z ~ q(z|x), in the generator's loss
    reconstruction_weight: float = 0.0
    # images from the generator's first step on in which that weight falls linearly to 0
    reconstruction_images: int = 100_000

    def __post_init__(self) -> None:
        is_known = self.generator in LAYER_CHOICES
        require(is_known, "generator", f"one of {', '.join(LAYER_CHOICES)}", self.generator)
        for key in ("num_layers", "reconstruction_images"):
            require(getattr(self, key) >= 1, key, "at least 1", getattr(self, key))
        for key in ("freeze_layers", "freeze_images", "reconstruction_weight"):
            require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        is_consistent = (self.freeze_layers > 0) == (self.freeze_images > 0)
        expected = f"positive with freeze_layers={self.freeze_layers}, and 0 with none"
        require(is_consistent, "freeze_images", expected, self.freeze_images)

    def reconstruction_weight_at(self, num_images: int) -> float:
        """Return the reconstruction's weight after so many images of the generator's training."""
        share_left = 1 - num_images / self.reconstruction_images
        return self.reconstruction_weight * max(0.0, share_left)


class Transfer(NamedTuple):
    """Record of the layers that a network took over."""

    network: str
    source: str
    copied: list[str]  # names of layers
    fresh: list[str]  # names of layers
    num_copied: int  # weights
    num_weights: int

    def __str__(self) -> str:
        if not self.copied:
            return f"{self.network}: fresh weights"
        num_layers = len(self.copied) + len(self.fresh)
        text = f"{self.network}: {len(self.copied)} of {num_layers} layers "
        text += f"({self.num_copied:,} of {self.num_weights:,} weights) from {self.source}"
        return text + (f"; fresh: {', '.join(self.fresh)}" if self.fresh else "")


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that have weights of their own, by name, in order."""
    return {
        name: module
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def describe_transfer(
    network: nn.Module, copied: list[str], network_name: str, source_name: str
) -> Transfer:
    """Return the report of copied layers, by name."""
    sizes = {}
    for name, layer in layers(network).items():
        sizes[name] = sum(p.numel() for p in layer.parameters(recurse=False))
    fresh = [name for name in sizes if name not in copied]
    num_copied = sum(sizes[name] for name in copied)
    return Transfer(network_name, source_name, copied, fresh, num_copied, sum(sizes.values()))


def init_generator(vae: VAE, fresh: VAE, config: WarmStartConfig) -> tuple[Generator, Transfer]:
    """Return a generator with layers of a trained VAE's decoder, the others fresh.

    Args:
        vae: The trained VAE.
        fresh: One of the same architecture with fresh weights.
        config: The layers to copy. With all of them, the generator is the VAE's decoder followed by
            its likelihood's mean, bit for bit.

    Raises:
        ValueError: The decoder has fewer layers than the config asks for.
    """
    names = list(layers(vae.decoder))
    expected = f"at most the decoder's {len(names)} ({', '.join(names)})"
    is_partial = config.generator in ("first", "last")
    has_layers = not is_partial or config.num_layers <= len(names)
    require(has_layers, "warm_start.num_layers", expected, config.num_layers)
    num_frozen = config.freeze_layers
    require(num_frozen <= len(names), "warm_start.freeze_layers", expected, num_frozen)
    copied = {
        "all": names,
        "first": names[: config.num_layers],
        "last": names[-config.num_layers :],
        "none": [],
    }[config.generator]
    decoder = copy.deepcopy(fresh.decoder)
    for name in copied:
        trained = vae.decoder.get_submodule(name)
        decoder.get_submodule(name).load_state_dict(trained.state_dict())
    likelihood = copy.deepcopy(vae.likelihood if copied else fresh.likelihood)
    transfer = describe_transfer(decoder, copied, "generator", "the VAE's decoder")
    return Generator(decoder, likelihood), transfer


def init_discriminator(vae: VAE, discriminator: Discriminator, config: WarmStartConfig) -> Transfer:
    """Load the trunk of the VAE's encoder into a discriminator of the same architecture.

    Raises:
        ValueError: The architectures differ, and the config asks for a warm start.
    """
    copied: list[str] = []
    is_wanted = config.discriminator
    if is_wanted is None:
        is_wanted = config.generator != "none"
    difference = trunk_difference(discriminator, vae.encoder)
    if is_wanted and difference is None:
        discriminator.trunk.load_state_dict(vae.encoder.trunk.state_dict())
        copied = [f"trunk.{name}" for name in layers(discriminator.trunk)]
    elif is_wanted:
        message = f"discriminator cannot start from the VAE's encoder: {difference}"
        if config.discriminator:
            raise ValueError(f"{message}; choose the same for both")
        log.info("%s", message)
    return describe_transfer(discriminator, copied, "discriminator", "the VAE's encoder")


def trunk_difference(discriminator: nn.Module, encoder: nn.Module) -> str | None:
    """Return the settings in which the trunks of two networks differ, or None if there are none.

    Weights are useful only in the order and with the activations they were trained with.
    """
    ours = getattr(discriminator, "trunk", None)
    theirs = getattr(encoder, "trunk", None)
    if not isinstance(ours, Trunk) or not isinstance(theirs, Trunk):
        return "one of them has no trunk"
    keys = dict.fromkeys([*ours.architecture, *theirs.architecture])
    differing = []
    for key in keys:
        value, encoder_value = ours.architecture.get(key), theirs.architecture.get(key)
        if value != encoder_value:
            differing.append(f"discriminator has {key}={value}, encoder {key}={encoder_value}")
    return "; ".join(differing) or None
