"""LightningModules that score generated images against the real images of a split."""

from __future__ import annotations

import abc
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaegan.data.datamodule import Batch
from vaegan.data.dataset import SplitName
from vaegan.gan.generator import Generator
from vaegan.gan.latents import Latents, draw_latents
from vaegan.metrics.scorer import Scorer
from vaegan.runtime.seeding import drawing_noise
from vaegan.vae.model import in_full_precision

MAX_TEST_DRAWS = 4  # as many as stage=evaluate makes by default
# Limit on the images of all draws together, except for a single draw: with more images, scores
# depend less on the draw, and take longer.
MAX_TEST_IMAGES = 4000


def num_test_draws(num_images: int) -> int:
    """Return the number of draws of latents that training scores on a test split at its end."""
    return max(1, min(MAX_TEST_DRAWS, MAX_TEST_IMAGES // num_images))


class ScoringModule(pl.LightningModule, abc.ABC):
    """Generate one image per real image in validation and test, and collect the features.

    Args:
        scorer: Scorer of generated images; `scorer.compute()` returns the scores.

    Attributes:
        draw: Index of the draw of latents (see `draw_latents`); validation uses 0.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.draw = 0

    @abc.abstractmethod
    def latent_distribution(self) -> Distribution:
        """Return the latent distribution, batch shape (), event shape (latent_dim,)."""

    @abc.abstractmethod
    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), from latents (B, latent_dim)."""

    @torch.no_grad()
    @in_full_precision()
    @drawing_noise()
    def sample_latents(self, num_latents: int) -> Tensor:
        """Sample latents (num_latents, latent_dim) with torch's global generator.

        `rsample` is preferred: `Normal.sample` draws the same numbers, but copies a value of the
        scale to the host, which synchronizes the GPU.
        """
        latents = self.latent_distribution()
        draw = latents.rsample if latents.has_rsample else latents.sample
        return draw(torch.Size([num_latents]))

    def on_validation_epoch_start(self) -> None:
        self.start_scoring("val")

    def on_test_epoch_start(self) -> None:
        self.start_scoring("test")

    def start_scoring(self, split: SplitName) -> None:
        """Draw one latent per real image of the split; each rank uses its share of them."""
        self.scorer.start(split, self.device)
        num_images = len(self.scorer.data.splits[split])
        self.latents_to_score = draw_latents(
            self.latent_distribution(), num_images, self.scorer.data.seed, self.draw
        )
        self.indices_to_score = torch.arange(num_images)[
            self.trainer.global_rank :: self.trainer.world_size
        ]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, _ = batch
        self.generate_to_score(len(images))

    @in_full_precision()
    def generate_to_score(self, num_images: int) -> None:
        """Generate the next images of this rank, and add them to the scorer."""
        indices = self.indices_to_score[:num_images]
        self.indices_to_score = self.indices_to_score[num_images:]
        z = self.latents_to_score[indices.to(self.latents_to_score.device)]
        self.scorer.update(self.generate(z), indices)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)


class GenerationModule(ScoringModule):
    """Score a generator in Lightning's test loop; `scorer.scores` then holds the scores.

    Args:
        generator: Generator to score.
        latents: Latent distribution.
        scorer: Scorer of generated images.
    """

    def __init__(self, generator: Generator, latents: Latents, scorer: Scorer) -> None:
        super().__init__(scorer)
        self.generator = generator
        self.latents = latents

    def latent_distribution(self) -> Distribution:
        return self.latents()

    def generate(self, z: Tensor) -> Any:
        return self.generator(z)

    def on_test_epoch_end(self) -> None:
        self.scorer.compute()
