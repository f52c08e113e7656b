"""LightningModules that score generated images against the real images of a split."""

from __future__ import annotations

import abc
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaegan.data.datamodule import Batch
from vaegan.gan.generator import Generator
from vaegan.gan.latents import Latents
from vaegan.metrics.scorer import Scorer


class ScoringModule(pl.LightningModule, abc.ABC):
    """Generate one image per real image in validation and test, and collect the features.

    Args:
        scorer: Scorer of generated images; `scorer.compute()` returns the scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    @abc.abstractmethod
    def latent_distribution(self) -> Distribution:
        """Return the latent distribution, batch shape (), event shape (latent_dim,)."""

    @abc.abstractmethod
    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), from latents (B, latent_dim)."""

    @torch.no_grad()
    def sample_latents(self, num_latents: int) -> Tensor:
        """Sample latents (num_latents, latent_dim) with torch's global generator.

        `rsample` is preferred: `Normal.sample` draws the same numbers, but copies a value of the
        scale to the host, which synchronizes the GPU.
        """
        latents = self.latent_distribution()
        draw = latents.rsample if latents.has_rsample else latents.sample
        return draw(torch.Size([num_latents]))

    def on_validation_epoch_start(self) -> None:
        self.scorer.start("val", self.device)

    def on_test_epoch_start(self) -> None:
        self.scorer.start("test", self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, _ = batch
        self.scorer.update(self.generate(self.sample_latents(len(images))))

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
