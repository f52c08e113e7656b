"""Build the components of a GAN from those of a VAE."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import torch

from vaegan.config import require
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ArrayLike
from vaegan.gan.components import GANComponents
from vaegan.gan.emphasis import Emphasis
from vaegan.gan.generator import Generator
from vaegan.gan.latents import AggregatePosterior, Latents, check_num_images
from vaegan.gan.noise_inputs import NoisyDecoder
from vaegan.gan.training_config import GANConfig, GANTraining
from vaegan.gan.warm_start import Transfer, WarmStartConfig, init_discriminator, init_generator
from vaegan.images import to_float
from vaegan.networks.decoders import Decoder
from vaegan.networks.discriminators import Discriminator, apply_spectral_norm
from vaegan.networks.trunks import Trunk
from vaegan.runtime.seeding import seeded
from vaegan.vae.model import NUM_CONSTANT_IMAGES, VAE

log = logging.getLogger(__name__)
MAX_ENCODED = 500  # training images encoded at once to fit the aggregate posterior
MAX_ENCODED_VALUES = 2**21  # their pixels times channels, which limit the memory
NUM_AGGREGATE_IMAGES = 10_000  # training images used to fit the aggregate posterior


def build_components(
    config: GANConfig,
    training: GANTraining,
    vae: VAE,
    build_fresh: Callable[[], VAE],
    data: ImageDataModule,
    seed: int,
    device: torch.device,
) -> tuple[GANComponents, list[Transfer]]:
    """Build the components of a GAN, and describe the layers copied into both networks.

    Args:
        config: Components of the GAN.
        training: Warm start and emphasis.
        vae: Trained VAE.
        build_fresh: Returns a VAE with the architecture of `vae` and fresh weights.
        data: Training images.
        seed: Random seed of the fresh weights.
        device: Device on which training images are encoded.

    Raises:
        ValueError: A network does not have the layers that the warm start requires.
    """
    images = data.splits["train"].images
    warm_start, is_natural = training.warm_start, data.source.IS_NATURAL
    initialize = partial(initialize_fresh, build_fresh, images, seed)
    generator, transfer = init_generator(vae, initialize, warm_start)
    discriminator, discriminator_transfer = build_discriminator(config, warm_start, vae, seed)
    components = GANComponents(
        vae=vae,
        latents=build_latents(warm_start, vae, images, seed, device),
        generator=add_noise_inputs(generator, vae) if training.noise_inputs else generator,
        discriminator=discriminator,
        loss=config.adversarial_loss.build(),
        penalty=config.gradient_penalty.build(vae.image_shape),
        augmentation=config.resolved_augmentation(is_natural).build(),
        emphasis=Emphasis(training.emphasis.resolve_defaults(is_natural)),
    )
    return components, [transfer, discriminator_transfer]


def add_noise_inputs(generator: Generator, vae: VAE) -> Generator:
    """Return a generator with the same layers and noise inputs, which gives the same images."""
    assert isinstance(generator.decoder, Decoder)
    (latent_dim,) = vae.latent_prior().event_shape
    return Generator(NoisyDecoder(generator.decoder, latent_dim), generator.likelihood)


def initialize_fresh(build_fresh: Callable[[], VAE], images: ArrayLike, seed: int) -> VAE:
    """Build a VAE with fresh weights, initialized to the training images (`VAE.initialize`)."""
    with seeded(seed, "init", "cold"):
        fresh = build_fresh()
        num_images = max(NUM_CONSTANT_IMAGES, fresh.prior.num_initial_images)
        fresh.initialize(to_float(images[:num_images]))
    return fresh


def build_discriminator(
    config: GANConfig, warm_start: WarmStartConfig, vae: VAE, seed: int
) -> tuple[Discriminator, Transfer]:
    """Build the discriminator; spectral norm is applied after the VAE's layers are copied.

    Raises:
        ValueError: The copied layers do not fit, or the feature loss needs a trunk.
    """
    with seeded(seed, "init", "discriminator"):
        discriminator = config.discriminator.build(vae.image_shape)
        has_trunk = isinstance(getattr(discriminator, "trunk", None), Trunk)
        expected = f"0, because discriminator={config.discriminator.name} has no trunk"
        weight = warm_start.feature_weight
        require(has_trunk or not weight, "warm_start.feature_weight", expected, weight)
        transfer = init_discriminator(vae, discriminator, warm_start)
        if config.discriminator.spectral_norm:
            apply_spectral_norm(discriminator)
    return discriminator, transfer


def build_latents(
    config: WarmStartConfig, vae: VAE, images: ArrayLike, seed: int, device: torch.device
) -> Latents:
    """Build the latent distribution; an aggregate posterior is fitted to training images.

    Raises:
        ValueError: There are too few training images for an aggregate posterior.
    """
    if not config.aggregate_posterior:
        return Latents(vae, None)
    (latent_dim,) = vae.latent_prior().event_shape
    num_images = count_aggregate_images(len(images), latent_dim)
    aggregate = AggregatePosterior(latent_dim)
    num_values = math.prod(vae.image_shape)
    size = min(MAX_ENCODED, max(1, MAX_ENCODED_VALUES // num_values))
    slices = (slice(i, min(i + size, num_images)) for i in range(0, num_images, size))
    vae.to(device)
    assert config.bandwidth is not None  # resolved
    with seeded(seed, "aggregate"):
        aggregate.fit(vae, (to_float(images[each]) for each in slices), config.bandwidth)
    vae.cpu()
    message = "latents: density fitted to those of %d training images, bandwidth=%g"
    log.info(message, num_images, config.bandwidth)
    return Latents(vae, aggregate)


def count_aggregate_images(num_train: int, latent_dim: int) -> int:
    """Return the number of training images to which the aggregate posterior is fitted.

    Args:
        num_train: Number of training images.
        latent_dim: Dimension of the latents.

    Raises:
        ValueError: There are too few training images.
    """
    num_images = min(num_train, NUM_AGGREGATE_IMAGES)
    check_num_images(num_images, latent_dim)
    return num_images
