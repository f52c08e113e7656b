"""Noise inputs of a generator: details that a latent does not have to describe."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from vaegan.networks.decoders import Decoder
from vaegan.networks.sizes import ACTIVATIONS

ANGLE_STD = 8.0  # standard deviation of a.z in radians for latents z ~ N(0, I)
ACTIVATION_TYPES = tuple(type(build()) for build in ACTIVATIONS.values())


class NoisyDecoder(nn.Module):
    """Decoder that adds noise to its hidden layers, with learned weights that start at 0.

    The noise is added before each activation outside of residual blocks whose input has positions,
    (B, C, H, W). It is a function of the latent, so that a latent always gives the same image, but
    it differs completely between two latents that are not close to each other: at each position it
    is sqrt(2) cos(a.z + b), with fixed random a and b. One noise image, (B, 1, H, W), is
    shared by the channels of a layer, each of which has a weight.

    Without noise, convolutions draw textures as smooth curves, because they have to make them from
    a few latents.

    Args:
        decoder: Decoder; its layers are used, not copied.
        latent_dim: Dimension of the latents.

    Source: Karras et al. 2019, arXiv:1812.04948, with random features (Rahimi and Recht 2007)
    instead of random numbers.
    """

    def __init__(self, decoder: Decoder, latent_dim: int) -> None:
        super().__init__()
        self.net = decoder.net
        self.noise = nn.ModuleDict()
        for i, (name, (channels, height, width)) in enumerate(noisy_layers(decoder, latent_dim)):
            self.noise[name] = NoiseInput(latent_dim, channels, (height, width), seed=i)

    def forward(self, z: Tensor) -> Tensor:
        """Return unconstrained parameters, (B, *param_shape), of latents (B, latent_dim)."""
        hidden = z
        for name, layer in self.net.named_children():
            if name in self.noise:
                hidden = self.noise[name](hidden, z)
            hidden = layer(hidden)
        return hidden


class NoiseInput(nn.Module):
    """Add noise to the hidden units of one layer.

    Args:
        latent_dim: Dimension of the latents.
        channels: Channels of the layer.
        size: Height and width of the layer.
        seed: Random seed of the noise, which is the same in all generators.
    """

    frequency: Tensor  # (H * W, latent_dim)
    phase: Tensor  # (H * W,), in radians

    def __init__(self, latent_dim: int, channels: int, size: tuple[int, int], seed: int) -> None:
        super().__init__()
        rng = np.random.RandomState(seed)  # its numbers are the same in all versions of NumPy
        num_positions = math.prod(size)
        scale = ANGLE_STD / math.sqrt(latent_dim)
        frequency = scale * rng.standard_normal((num_positions, latent_dim))
        phase = rng.uniform(0, 2 * math.pi, num_positions)
        for name, values in {"frequency": frequency, "phase": phase}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.weight = nn.Parameter(torch.zeros(channels, 1, 1))
        self.size = size

    def forward(self, hidden: Tensor, z: Tensor) -> Tensor:
        """Return the sum of hidden units (B, channels, H, W) and weighted noise.

        Args:
            hidden: Hidden units.
            z: Latents, (B, latent_dim).
        """
        with torch.autocast(z.device.type, enabled=False):
            angle = nn.functional.linear(z.to(self.frequency.dtype), self.frequency, self.phase)
        noise = (math.sqrt(2) * angle.cos()).unflatten(1, (1, *self.size)).to(hidden.dtype)
        return torch.addcmul(hidden, self.weight.to(hidden.dtype), noise)


@torch.no_grad()
def noisy_layers(decoder: Decoder, latent_dim: int) -> list[tuple[str, torch.Size]]:
    """Return the names of the layers before which noise is added, and the shapes of their inputs.

    Args:
        decoder: Decoder.
        latent_dim: Dimension of the latents.
    """
    layers = []
    hidden = torch.zeros(1, latent_dim, device=next(decoder.parameters()).device)
    for name, layer in decoder.net.named_children():
        if isinstance(layer, ACTIVATION_TYPES) and hidden.dim() == 4:
            layers.append((name, hidden.shape[1:]))
        hidden = layer(hidden)
    return layers
