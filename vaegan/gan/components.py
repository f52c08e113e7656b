"""Networks, losses and counters of a GAN's training."""

from __future__ import annotations

from dataclasses import dataclass

from vaegan.gan.augmentation import Augmentation
from vaegan.gan.generator import Generator
from vaegan.gan.latents import Latents
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.penalties import GradientPenalty
from vaegan.networks.discriminators import Discriminator
from vaegan.vae.model import VAE


@dataclass
class GANComponents:
    """Networks, losses and augmentation of a GAN."""

    vae: VAE  # frozen; its encoder serves the reconstruction loss and, by default, the scorer
    latents: Latents
    generator: Generator  # shares no weight with the VAE
    discriminator: Discriminator
    loss: AdversarialLoss
    penalty: GradientPenalty
    augmentation: Augmentation


@dataclass
class TrainingProgress:
    """Training counters stored in the checkpoint."""

    images: int = 0  # real images that the discriminator was shown, those of its warm-up included
    discriminator_updates: int = 0
    generator_updates: int = 0
    flops: float = 0.0  # floating-point operations so far
