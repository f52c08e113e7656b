"""The generator of a GAN: the decoder of a VAE followed by the likelihood's mean."""

from __future__ import annotations

from torch import Tensor, nn

from vaegan.networks.decoders import Decoder
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.vae.model import full_precision


class Generator(nn.Module):
    """Latents (B, latent_dim) to images in [0, 1], (B, C, H, W)."""

    def __init__(self, decoder: Decoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> Tensor:
        return self.likelihood(full_precision(self.decoder(z))).mean
