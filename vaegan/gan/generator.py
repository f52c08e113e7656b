"""Generator of a GAN: the decoder of a VAE followed by the mean of the likelihood."""

from __future__ import annotations

from torch import Tensor, nn

from vaegan.gan.noise_inputs import NoisyDecoder
from vaegan.networks.decoders import Decoder
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.vae.model import to_full_precision


class Generator(nn.Module):
    """Map latents z to the mean of p(x|z).

    Args:
        decoder: Maps latents (B, latent_dim) to likelihood parameters.
        likelihood: Maps the parameters to p(x|z).

    Attributes:
        saturation_logit: Current limit of saturated pixels, see `GANTraining`; it changes gradients
            only.
    """

    def __init__(self, decoder: Decoder | NoisyDecoder, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder = decoder
        self.likelihood = likelihood
        self.saturation_logit = 0.0

    def forward(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), from latents (B, latent_dim)."""
        params = to_full_precision(self.decoder(z))
        return self.likelihood.image(params, self.saturation_logit)
