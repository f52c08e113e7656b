"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from torch import Tensor, nn

from vaegan.networks.decoders import Decoder
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.vae.model import full_precision


class Generator(nn.Module):
    """Latents to images: a decoder followed by the likelihood's mean."""

    def __init__(self, decoder: Decoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder, self.likelihood = decoder, likelihood

    def forward(self, z: Tensor) -> Tensor:
        """Images in [0, 1], (B, C, H, W), of latents (B, latent_dim)."""
        images: Tensor = self.likelihood(full_precision(self.decoder(z))).mean
        return images
