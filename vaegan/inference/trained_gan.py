"""Trained GAN: its EMA generator."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.gan.generator import Generator
from vaegan.inference.inversion import Inversion, invert_generator
from vaegan.inference.trained_model import TrainedModel
from vaegan.inference.trained_vae import TrainedVAE
from vaegan.probability.distributions import mean_of


class TrainedGAN(TrainedModel):
    """Trained GAN: its EMA generator, and the VAE that it was started from.

    Args:
        checkpoint: Checkpoint of the GAN.
    """

    module: Generator

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint, checkpoint.build_generator(), checkpoint.build_latents())

    @functools.cached_property
    def vae(self) -> TrainedVAE:
        """The VAE that the GAN was started from, on the CPU until it is moved."""
        return TrainedVAE(self.checkpoint)

    def _generate(self, z: Tensor) -> Tensor:
        return self.module(z)

    def _sample_block(self, z: Tensor, first_seed: int, draw: bool) -> Tensor:
        if draw:
            raise ValueError(
                "mean_or_draw=draw: a GAN has no p(x|z) to draw from, because its images are a "
                "function of the latents. Use mean_or_draw=mean, or the VAE of the run"
            )
        return super()._sample_block(z, first_seed, draw)

    def invert(
        self, images: Any, num_steps: int = 200, lr: float = 0.05, num_layers: int = 0
    ) -> Inversion:
        """Find latents whose images are close to given images.

        The search starts at the posterior means of the VAE's encoder and minimizes the squared
        error of the pixels.

        Args:
            images: Images, as in `TrainedVAE.images`.
            num_steps: Adam steps per image, >= 0.
            lr: Learning rate.
            num_layers: Number of the generator's last layers to optimize too, separately for each
                image.
        """
        vae = self.vae.to(self.device)
        real = vae.images(images)
        with torch.no_grad():
            start = mean_of(vae.encode(real))
        return invert_generator(self.module, real, start, num_steps, lr, num_layers)

    def __getattr__(self, name: str) -> Any:
        if hasattr(TrainedVAE, name) and not hasattr(type(self), name):
            raise AttributeError(f"a GAN has no {name}; use its VAE: model.vae.{name}")
        return super().__getattribute__(name)  # raises, also the error raised inside a property
