"""Networks, losses and training counters of a GAN."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan.gan.augmentation import Augmentation
from vaegan.gan.emphasis import Emphasis
from vaegan.gan.generator import Generator
from vaegan.gan.latents import Latents
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.penalties import GradientPenalty
from vaegan.networks.discriminators import Discriminator
from vaegan.vae.model import VAE


@dataclass
class GANComponents:
    """Networks, losses, augmentation and emphasis of a GAN."""

    vae: VAE  # frozen; provides p(z), reconstructions and feature_extractor=vae_encoder
    latents: Latents
    generator: Generator  # shares no parameters with the VAE
    discriminator: Discriminator
    loss: AdversarialLoss
    penalty: GradientPenalty
    augmentation: Augmentation
    emphasis: Emphasis  # applied to augmented images before the discriminator


@dataclass
class TrainingProgress:
    """Training counters stored in the checkpoint."""

    images: int = 0  # real images shown to the discriminator, including its warm-up
    discriminator_updates: int = 0
    generator_updates: int = 0
    flops: float = 0.0  # floating-point operations of training, over all devices
