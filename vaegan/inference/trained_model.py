"""Base class of trained models: sampling and decoding.

    model = vaegan.load("last")
    images = model.sample(16, seed=0)  # (16, C, H, W), in [0, 1]

All methods run without gradients and return float32 tensors on the model's device. For gradients,
use the network itself, `model.module`.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import require
from vaegan.gan.latents import Latents
from vaegan.images import ImageShape
from vaegan.inference.latent_sampler import make_sampler

BLOCK_SIZE = 16  # images generated at once; another size changes images by rounding
DECODE_BATCH_SIZE = 100  # latents decoded at once by `decode`


class TrainedModel(abc.ABC):
    """Trained model that generates images.

    Args:
        checkpoint: Checkpoint of the model.
        module: Network that the methods use, in eval mode, on the CPU.
        latents: Latent distribution. It stays on the CPU, so that seeds have the same latents on
            all devices.

    Attributes:
        image_shape: (C, H, W).
        latent_dim: Dimensions of the latents.
        class_names: Names of the classes of the training images; None if they have no classes.
        device: Device of the networks.
    """

    def __init__(self, checkpoint: Checkpoint, module: nn.Module, latents: Latents) -> None:
        self.checkpoint = checkpoint
        self.module = module
        self.latents = latents
        self.image_shape: ImageShape = checkpoint.image_shape
        self.class_names = checkpoint.class_names
        self.device = torch.device("cpu")
        with torch.no_grad():
            self.sampler = make_sampler(self.latents())
        self.latent_dim = self.sampler.latent_dim

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({self.checkpoint.path}, image_shape={self.image_shape})"

    def to(self, device: str | torch.device) -> Self:
        """Move the networks to a device; return the model.

        Raises:
            ValueError: The device is not available.
        """
        try:
            self.module.to(device)
            self.device = torch.device(device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"device={device} is not available here: {reason}") from error
        return self

    @abc.abstractmethod
    def _generate(self, z: Tensor) -> Tensor:
        """Return the mean of p(x | z), (B, C, H, W), for latents (B, latent_dim) on the device."""

    def _check_finite(self, images: Tensor) -> Tensor:
        """Return generated images.

        Raises:
            ValueError: A value is nan or infinite.
        """
        if not images.isfinite().all():
            raise ValueError(
                f"the images of {self.checkpoint.path} contain nan or inf: either the mean of its "
                "likelihood is not defined, or its weights are damaged"
            )
        return images

    @torch.no_grad()
    def decode(self, z: Any) -> Tensor:
        """Return the images of latents: the mean of p(x | z).

        Args:
            z: Latents, (B, latent_dim).

        Returns:
            Images in [0, 1], (B, C, H, W).

        Raises:
            ValueError: The latents have another shape, or the latents or an image contain nan or
                inf.
        """
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        is_valid = z.dim() == 2 and z.shape[1] == self.latent_dim and len(z) > 0
        require(is_valid, "z", f"latents of shape (B, {self.latent_dim})", tuple(z.shape))
        if not z.isfinite().all():
            raise ValueError("z must be finite; got nan or inf")
        batches = z.split(DECODE_BATCH_SIZE)
        return torch.cat([self._check_finite(self._generate(batch)) for batch in batches])

    def sample(self, n: int = 1, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """Generate images from random latents.

        Image i has the random seed `seed + i` and depends on nothing else: `sample(8)[5]` equals
        `sample(1, seed=5)[0]`, and stage=sample seeds=5 writes the same image.

        Args:
            n: Number of images.
            seed: Random seed of the first image.
            temperature: Factor of the latents' noise, >= 0. Below 1, images are more typical and
                less varied; if latents are drawn near those of training images, they are closer
                to these.

        Returns:
            Images in [0, 1], (n, C, H, W).
        """
        require(n >= 1, "n", "at least 1", n)
        require(seed >= 0, "seed", "at least 0", seed)
        return torch.stack(list(self.sample_seeds(range(seed, seed + n), temperature)))

    @torch.no_grad()
    def sample_latents(self, seeds: Sequence[int], temperature: float = 1.0) -> Tensor:
        """Return the latents of random seeds, (len(seeds), latent_dim), on the CPU."""
        require(temperature >= 0, "temperature", "at least 0", temperature)
        return self.sampler.latents(seeds, temperature)

    @torch.no_grad()
    def interpolate(self, start: int, end: int, num: int, temperature: float = 1.0) -> Tensor:
        """Return images on the path from the image of one seed to that of another.

        The path follows the latent distribution; see `vaegan.inference.latent_sampler`.

        Args:
            start: Random seed of the first image.
            end: Random seed of the last image.
            num: Number of images, >= 2.
            temperature: Factor of the latents' noise, >= 0.

        Returns:
            Images in [0, 1], (num, C, H, W).
        """
        require(num >= 2, "num", "at least 2", num)
        return self.decode(self.sampler.path(start, end, num, temperature))

    def sample_seeds(
        self, seeds: Sequence[int], temperature: float = 1.0, draw: bool = False
    ) -> Iterator[Tensor]:
        """Iterate over the images of random seeds, (C, H, W) each; see `sample`.

        The other images of a batch change the output of a network by rounding. Images are
        therefore generated in fixed blocks of seeds: 0 to 15, 16 to 31, and so on.

        Args:
            seeds: Random seeds.
            temperature: Factor of the latents' noise, >= 0.
            draw: True to sample from p(x | z), False for its mean. Only a VAE has a p(x | z).
        """
        block_index = None
        for seed in seeds:
            if seed // BLOCK_SIZE != block_index:
                block_index = seed // BLOCK_SIZE
                start = block_index * BLOCK_SIZE
                z = self.sample_latents(range(start, start + BLOCK_SIZE), temperature)
                with torch.no_grad():
                    block = self._sample_block(z.to(self.device), start, draw)
            yield block[seed % BLOCK_SIZE]

    def _sample_block(self, z: Tensor, first_seed: int, draw: bool) -> Tensor:
        """Return the images of the latents of consecutive seeds."""
        return self._check_finite(self._generate(z))
