"""Trained VAE: encode, reconstruct and score images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaegan.checkpoints.checkpoint import Checkpoint
from vaegan.config import require
from vaegan.gan.latents import Latents
from vaegan.inference.image_input import as_images, training_decoder
from vaegan.inference.trained_model import TrainedModel
from vaegan.probability.distributions import mean_of
from vaegan.runtime.evaluation_noise import PerImageNoise
from vaegan.runtime.seeding import seed_global, seeded
from vaegan.vae.evaluation import ImageScores, images_per_batch, score_images
from vaegan.vae.model import VAE

BATCH_SIZE = 100  # images scored at once, at most, as in stage=evaluate
CHUNK_SIZE = 2000  # latents decoded at once, as in stage=evaluate


class TrainedVAE(TrainedModel):
    """Trained VAE.

    Args:
        checkpoint: Checkpoint of the VAE, or of a GAN that was started from it.
    """

    module: VAE

    def __init__(self, checkpoint: Checkpoint) -> None:
        latents = Latents(checkpoint.build_vae(), aggregate=None)
        super().__init__(checkpoint, checkpoint.build_vae(), latents)

    def _generate(self, z: Tensor) -> Tensor:
        return self.module.decode(z).mean

    def _sample_block(self, z: Tensor, first_seed: int, draw: bool) -> Tensor:
        if not draw:
            return super()._sample_block(z, first_seed, draw)
        params = self._check_finite(self.module.decoder_params(z)).cpu()
        images = []
        for i in range(len(z)):  # on the CPU, so that a seed has the same noise on all devices
            with seeded("sample", first_seed + i, "pixels"):
                images.append(self.latents.vae.likelihood(params[i]).sample())
        return self._check_finite(torch.stack(images)).clamp(0, 1).to(self.device)

    def images(self, images: Any) -> Tensor:
        """Return images as float32 in [0, 1], (B, C, H, W), on the device of the model.

        Args:
            images: Float images in [0, 1] or uint8 images, (B, C, H, W) or (B, H, W, C), as a
                tensor or an array; PIL images of any size; or a list of these.

        Raises:
            ValueError: The images have an unsupported shape or type, or values outside [0, 1].
        """
        decoder = training_decoder(self.checkpoint)
        return as_images(images, self.image_shape, decoder).to(self.device)

    @torch.no_grad()
    def encode(self, images: Any, target_seed: int = 0) -> Distribution:
        """Return q(z | x), batch shape (B,), event shape (latent_dim,).

        Args:
            images: Images, see `images`.
            target_seed: Random seed of binarization or dequantization, if the likelihood uses one.
        """
        return self.module.encode(self.module.likelihood.target(self.images(images), target_seed))

    @torch.no_grad()
    def reconstruct(self, images: Any, target_seed: int = 0) -> Tensor:
        """Return the reconstructions of images, (B, C, H, W): decode the mean of q(z | x)."""
        return self.decode(mean_of(self.encode(images, target_seed)))

    def log_prob(
        self, images: Any, num_samples: int = 1000, seed: int = 0, target_seed: int = 0
    ) -> Tensor:
        """Estimate log p(x) of images by importance sampling, as stage=evaluate does.

        Args:
            images: Images, see `images`.
            num_samples: Importance samples per image. On average, the estimate increases with
                their number and converges to log p(x).
            seed: Random seed of the samples.
            target_seed: Random seed of binarization or dequantization, if the likelihood uses one.

        Returns:
            Nats per image, (B,).
        """
        return self.score(images, num_samples, seed, target_seed).log_evidence

    def elbo(
        self, images: Any, num_samples: int = 100, seed: int = 0, target_seed: int = 0
    ) -> Tensor:
        """Return the evidence lower bound of images, averaged over posterior samples.

        Args:
            images: Images, see `images`.
            num_samples: Posterior samples per image.
            seed: Random seed of the samples.
            target_seed: Random seed of binarization or dequantization, if the likelihood uses one.

        Returns:
            Nats per image, (B,).
        """
        scores = self.score(images, num_samples, seed, target_seed)
        return scores.log_likelihood - scores.kl

    @torch.no_grad()
    def score(
        self, images: Any, num_samples: int = 1000, seed: int = 0, target_seed: int = 0
    ) -> ImageScores:
        """Return all terms behind `log_prob` and `elbo`, in nats per image.

        For the images that stage=evaluate scores, the random numbers are the same as in that stage
        with its default batch size.
        """
        require(num_samples >= 1, "num_samples", "at least 1", num_samples)
        likelihood = self.module.likelihood
        scores = []
        is_cuda = self.device.type == "cuda"
        with torch.random.fork_rng([self.device] if is_cuda else []):
            all_images = self.images(images)
            size = images_per_batch(BATCH_SIZE, num_samples)
            indices = torch.arange(len(all_images), device=self.device).split(size)
            for i, batch in enumerate(all_images.split(size)):
                batch = batch.contiguous(memory_format=torch.channels_last)
                target = likelihood.target(batch, target_seed)
                likelihood.check(target)
                seed_global(self.device, seed, "test", i, 0)
                with PerImageNoise((seed, "test"), indices[i]):
                    scores.append(score_images(self.module, target, num_samples, CHUNK_SIZE))
        return ImageScores(*(torch.cat(parts) for parts in zip(*scores, strict=True)))
