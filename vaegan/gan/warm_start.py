"""Warm start: copy layers of a VAE into the generator and the discriminator of a GAN.

Each copy returns a `Transfer` that lists the copied and the fresh layers. A layer is a module that
directly owns parameters. Layers are named as in `named_modules`, in the order of registration.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import nn

from vaegan.config import from_plain, require
from vaegan.gan.generator import Generator
from vaegan.gan.reconstruction import ReconstructionWeights
from vaegan.networks.discriminators import Discriminator
from vaegan.networks.trunks import Trunk
from vaegan.vae.model import VAE

log = logging.getLogger(__name__)
LAYER_CHOICES = ("all", "first", "last", "none")
VAE_WEIGHTS = ("best", "last")
MIN_IMAGES_PER_DIM = 4  # training images per latent dimension needed to fit the aggregate posterior
# Tuned on clip art with Gaussian noise. Without the pixel loss, the generator loses most colors.
NATURAL_RECONSTRUCTION_WEIGHT = 0.1
NATURAL_FEATURE_WEIGHT = 4.0
# Chosen on clip art, whose shapes are cleaner than with a single Gaussian (1).
DEFAULT_BANDWIDTH = 0.5


@dataclass
class WarmStartConfig:
    """Use of the VAE in the GAN: copied layers, latent distribution, reconstruction losses."""

    # checkpoint in the VAE's run folder to start from: best (highest validation bound), or last,
    # whose samples are better on small data sets; null: last for natural images, else best
    vae_weights: str | None = None
    # layers copied from the VAE's decoder into the generator: all, first, last, none
    generator: str = "all"
    num_layers: int = 1  # number of layers copied with generator=first or generator=last, >= 1
    # true: copy the trunk of the VAE's encoder into the discriminator; false: start from fresh
    # weights; null: copy if generator is not none, both trunks have the same architecture, and
    # both networks see the same images, without emphasis
    discriminator: bool | None = None
    # true: sample latents from a density fitted to posterior samples of training images; false:
    # from the VAE's prior; null: true for natural images with a warm start and enough images to fit
    # it
    aggregate_posterior: bool | None = None
    # bandwidth of this density, a kernel density estimate, in (0, 1]: with 1 it is a single
    # Gaussian, with less the latents are closer to those of training images; null: 0.5, or as in
    # the earlier GAN in init
    bandwidth: float | None = None
    freeze_layers: int = 0  # number of the generator's first layers to freeze at the start, >= 0
    # number of real images, counted from the generator's first step, for which its first
    # freeze_layers layers stay frozen, >= 0
    freeze_images: int = 0
    # weight of the reconstruction loss in the generator's loss, >= 0: -log p(x|z) with z ~ q(z|x)
    # in nats per dimension; 0: no reconstruction loss; null: 0.1 for natural images with a warm
    # start, else 0
    reconstruction_weight: float | None = None
    # weight of the feature loss in the generator's loss, >= 0: relative squared difference between
    # the discriminator's hidden units for reconstructions and for real images; 0: no feature loss;
    # null: for natural images with a warm start 4, or as in the earlier GAN in init; else 0
    feature_weight: float | None = None
    # number of real images, counted from the generator's first step, over which
    # reconstruction_weight and feature_weight fall linearly to 0, >= 1; null: they are constant
    reconstruction_images: int | None = None

    def __post_init__(self) -> None:
        is_known = self.generator in LAYER_CHOICES
        require(is_known, "generator", f"one of {', '.join(LAYER_CHOICES)}", self.generator)
        is_known = self.vae_weights in (None, *VAE_WEIGHTS)
        expected = f"one of {', '.join(VAE_WEIGHTS)}, or null"
        require(is_known, "vae_weights", expected, self.vae_weights)
        require(self.num_layers >= 1, "num_layers", "at least 1", self.num_layers)
        images = self.reconstruction_images
        is_valid = images is None or images >= 1
        require(is_valid, "reconstruction_images", "at least 1, or null", images)
        for key in ("freeze_layers", "freeze_images"):
            require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        bandwidth = self.bandwidth
        is_valid = bandwidth is None or 0 < bandwidth <= 1
        require(is_valid, "bandwidth", "in (0, 1], or null", bandwidth)
        for key in ("reconstruction_weight", "feature_weight"):
            weight = getattr(self, key)
            is_valid = weight is None or 0 <= weight < math.inf
            require(is_valid, key, "at least 0 and finite, or null", weight)
        is_consistent = (self.freeze_layers > 0) == (self.freeze_images > 0)
        expected = f"positive with freeze_layers > 0, else 0 (freeze_layers={self.freeze_layers})"
        require(is_consistent, "freeze_images", expected, self.freeze_images)

    def reconstruction_weights_at(self, num_images: int) -> ReconstructionWeights:
        """Return the weights after `num_images` images of generator training."""
        factor = 1.0
        if self.reconstruction_images is not None:
            factor = max(0.0, 1 - num_images / self.reconstruction_images)
        return ReconstructionWeights(
            pixels=factor * (self.reconstruction_weight or 0.0) or None,
            features=factor * (self.feature_weight or 0.0) or None,
        )

    def resolve_defaults(
        self,
        is_natural: bool,
        images_per_dim: float,
        is_emphasized: bool,
        earlier: WarmStartConfig | None = None,
    ) -> WarmStartConfig:
        """Return the config with the null values that depend on the data replaced.

        Args:
            is_natural: True for natural images (`ImageSource.IS_NATURAL`).
            images_per_dim: Training images per latent dimension.
            is_emphasized: True if the discriminator sees images with emphasis.
            earlier: Settings of the GAN that is resumed or named by `init`, if any.

        Raises:
            ValueError: `bandwidth` is set, but latents are drawn from the prior.
        """
        uses_vae = is_natural and self.generator != "none"
        aggregate_posterior = self.aggregate_posterior
        if aggregate_posterior is None:
            aggregate_posterior = uses_vae and images_per_dim >= MIN_IMAGES_PER_DIM
        earlier_bandwidth = None if earlier is None else earlier.bandwidth
        weight, feature_weight = self.reconstruction_weight, self.feature_weight
        if weight is None:
            weight = NATURAL_RECONSTRUCTION_WEIGHT if uses_vae else 0.0
        if feature_weight is None:
            default = NATURAL_FEATURE_WEIGHT if earlier is None else earlier.feature_weight
            feature_weight = default if uses_vae else 0.0
        discriminator = self.discriminator
        if discriminator is None and is_emphasized:
            discriminator = False
        return replace(
            self,
            discriminator=discriminator,
            aggregate_posterior=aggregate_posterior,
            bandwidth=self._resolve_bandwidth(aggregate_posterior, earlier_bandwidth),
            reconstruction_weight=weight,
            feature_weight=feature_weight,
        )

    def _resolve_bandwidth(self, is_used: bool, earlier: float | None) -> float | None:
        if is_used:
            return self.bandwidth or earlier or DEFAULT_BANDWIDTH
        expected = "null without warm_start.aggregate_posterior=true"
        require(self.bandwidth is None, "warm_start.bandwidth", expected, self.bandwidth)
        return None


def saved_warm_start(run: Mapping[str, Any]) -> WarmStartConfig:
    """Return `bandwidth` and `feature_weight` in the plain config of a GAN.

    GANs of earlier versions lack them: their aggregate posterior is a single normal, and they have
    no feature loss.

    Raises:
        ValueError: An entry is invalid.
    """
    start = run.get("warm_start")
    start = start if isinstance(start, Mapping) else {}
    bandwidth = 1.0 if start.get("aggregate_posterior") else None
    defaults = {"bandwidth": bandwidth, "feature_weight": 0.0}
    plain = {key: start.get(key, default) for key, default in defaults.items()}
    return from_plain(WarmStartConfig, plain, "warm_start")


class Transfer(NamedTuple):
    """Summary of the layers copied into a network; the fields are stored in the run record."""

    network: str  # network that received the layers
    source: str  # network that the layers come from
    copied: list[str]  # names of the copied layers
    fresh: list[str]  # names of the layers with fresh weights
    num_copied: int  # number of copied weights
    num_weights: int  # number of weights of the network

    def __str__(self) -> str:
        if not self.copied:
            return f"{self.network}: fresh weights"
        num_layers = len(self.copied) + len(self.fresh)
        text = f"{self.network}: {len(self.copied)} of {num_layers} layers "
        text += f"({self.num_copied:,} of {self.num_weights:,} weights) from {self.source}"
        return text + (f"; fresh: {', '.join(self.fresh)}" if self.fresh else "")


def named_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that directly own parameters by name, in the order of registration."""
    return {
        name: module
        for name, module in network.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    }


def describe_transfer(
    network: nn.Module, copied: list[str], network_name: str, source_name: str
) -> Transfer:
    """Return the summary of the `copied` layers, given by name, of a network."""
    sizes = {}
    for name, layer in named_layers(network).items():
        sizes[name] = sum(p.numel() for p in layer.parameters(recurse=False))
    fresh = [name for name in sizes if name not in copied]
    num_copied = sum(sizes[name] for name in copied)
    return Transfer(network_name, source_name, copied, fresh, num_copied, sum(sizes.values()))


def init_generator(
    vae: VAE, build_fresh: Callable[[], VAE], config: WarmStartConfig
) -> tuple[Generator, Transfer]:
    """Build a generator from layers of a trained decoder and layers with fresh weights.

    With `generator=all` the result is the VAE's decoder and the likelihood's mean, bit for bit.

    Args:
        vae: Trained VAE.
        build_fresh: Returns a VAE of the same architecture with fresh weights. It is called only
            if a layer has fresh weights.
        config: Layers to copy.

    Raises:
        ValueError: `num_layers` or `freeze_layers` exceeds the number of decoder layers.
    """
    names = list(named_layers(vae.decoder))
    expected = f"at most {len(names)}, the number of decoder layers ({', '.join(names)})"
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
    start = vae if copied == names else build_fresh()
    decoder = copy.deepcopy(start.decoder).train()
    for name in copied:
        trained = vae.decoder.get_submodule(name)
        decoder.get_submodule(name).load_state_dict(trained.state_dict())
    likelihood = copy.deepcopy(vae.likelihood if copied else start.likelihood)
    transfer = describe_transfer(decoder, copied, "generator", "the VAE's decoder")
    return Generator(decoder, likelihood), transfer


def init_discriminator(vae: VAE, discriminator: Discriminator, config: WarmStartConfig) -> Transfer:
    """Copy the trunk of the VAE's encoder into a discriminator of the same architecture.

    Args:
        vae: Trained VAE.
        discriminator: Discriminator with fresh weights, modified in place.
        config: Layers to copy; nothing if `discriminator` is None and the architectures differ.

    Raises:
        ValueError: The architectures differ, but `config.discriminator` is True.
    """
    copied: list[str] = []
    is_warm = config.discriminator
    if is_warm is None:
        is_warm = config.generator != "none"
    mismatch = describe_trunk_mismatch(discriminator, vae.encoder)
    if is_warm and mismatch is None:
        discriminator.trunk.load_state_dict(vae.encoder.trunk.state_dict())
        copied = [f"trunk.{name}" for name in named_layers(discriminator.trunk)]
    elif is_warm:
        message = f"discriminator cannot start from the VAE's encoder: {mismatch}"
        if config.discriminator:
            remedy = "use the same settings for both, or set warm_start.discriminator=false"
            raise ValueError(f"{message}; {remedy}")
        log.warning("%s; its weights are fresh (to copy them, use the same settings)", message)
    return describe_transfer(discriminator, copied, "discriminator", "the VAE's encoder")


def describe_trunk_mismatch(discriminator: nn.Module, encoder: nn.Module) -> str | None:
    """Return the settings in which the trunks of two networks differ; None if they are equal.

    Activations are compared too: weights are useful only with the activation they were trained
    with.
    """
    trunk = getattr(discriminator, "trunk", None)
    encoder_trunk = getattr(encoder, "trunk", None)
    if not isinstance(trunk, Trunk) or not isinstance(encoder_trunk, Trunk):
        return "one of the two networks has no trunk"
    keys = dict.fromkeys([*trunk.architecture, *encoder_trunk.architecture])
    mismatches = []
    for key in keys:
        value, encoder_value = trunk.architecture.get(key), encoder_trunk.architecture.get(key)
        if value != encoder_value:
            mismatches.append(f"discriminator has {key}={value}, encoder {key}={encoder_value}")
    return "; ".join(mismatches) or None
