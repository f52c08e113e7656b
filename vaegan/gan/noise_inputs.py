"""Noise inputs of a generator: details that a latent does not have to describe."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from vaegan.networks.blocks import DecoderLayers, SkipExcitation
from vaegan.networks.decoders import Decoder
from vaegan.networks.sizes import ACTIVATIONS

ANGLE_STD = 8.0  # standard deviation of a.z in radians for latents z ~ N(0, I)
MAX_VALUES = 2**28  # largest number of frequencies; they take 1 GiB
NUM_CHECKED_IMAGES = 200  # training images that decide on the default
# Least fraction of equal neighboring pixels in drawings. It was 0.05 to 0.11 in three sets of
# photographs and 0.36 to 0.58 in four of drawings.
FLAT_FRACTION = 0.2
ACTIVATION_TYPES: tuple[type, ...] = (
    SkipExcitation,
    *(type(build()) for build in ACTIVATIONS.values()),
)


class NoisyDecoder(nn.Module):
    """Decoder that adds noise to its hidden layers, with learned weights that start at 0.

    Noise is added to the input of each activation in `decoder.net` that acts on feature maps,
    (B, C, H, W), but not inside residual blocks. It is a function of the latent, so that a latent
    always gives the same image, but it differs completely between two latents that are not close to
    each other: at each position it is sqrt(2) cos(a.z + b), with fixed random a and b. One noise
    image, (B, 1, H, W), is shared by the channels of a layer, each of which has a weight.

    Without noise, convolutions draw textures as smooth curves, because all details must be computed
    from a few latents. Drawings get speckles.

    Args:
        decoder: Decoder that applies the layers of `net`; they are used, not copied.
        latent_dim: Dimension of the latents; the latents should have a standard deviation near 1.

    Raises:
        ValueError: The decoder has another `forward`, or the images are too large.

    Source: Karras et al. 2019, arXiv:1812.04948, with random features (Rahimi and Recht 2007)
    instead of random numbers.
    """

    def __init__(self, decoder: Decoder, latent_dim: int) -> None:
        super().__init__()
        if not takes_noise(decoder):
            raise ValueError(
                f"noise_inputs must be false with {type(decoder).__name__}, which overrides "
                "Decoder.forward or its layers"
            )
        layers = noisy_layers(decoder, latent_dim)
        if sum(height * width for _, (_, height, width) in layers) * latent_dim > MAX_VALUES:
            raise ValueError("noise_inputs must be false for such large images and latents")
        self.net = decoder.net
        self.noise = nn.ModuleDict()
        for i, (name, (channels, height, width)) in enumerate(layers):
            self.noise[name] = NoiseInput(latent_dim, channels, (height, width), seed=i)

    def forward(self, z: Tensor) -> Tensor:
        """Return unconstrained parameters, (B, *param_shape), of latents (B, latent_dim)."""

        def add_noise(index: int, hidden: Tensor) -> Tensor:
            name = str(index)
            return self.noise[name](hidden, z) if name in self.noise else hidden

        return self.net(z, add_noise)


def takes_noise(decoder: Decoder) -> bool:
    """True if a decoder does nothing but apply the layers of its `net`."""
    return type(decoder).forward is Decoder.forward and isinstance(decoder.net, DecoderLayers)


def has_textures(images: Tensor) -> bool:
    """True for photographs; false for drawings, in which many neighboring pixels are equal.

    Args:
        images: uint8 images, (N, C, H, W).
    """
    is_equal = (images[..., 1:] == images[..., :-1]).all(1)
    return float(is_equal.float().mean()) < FLAT_FRACTION


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
    """Return the positions of the layers before which noise is added, and their input shapes.

    Args:
        decoder: Decoder.
        latent_dim: Dimension of the latents.
    """
    layers = []
    net = copy.deepcopy(decoder.net).to("meta").eval()

    def record(index: int, hidden: Tensor) -> Tensor:
        if isinstance(net[index], ACTIVATION_TYPES) and hidden.dim() == 4:
            layers.append((str(index), hidden.shape[1:]))
        return hidden

    net(torch.zeros(1, latent_dim, device="meta"), record)
    return layers
