"""LightningModules that compare generated images with the real images of a split."""

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
    """Generates an image for each real one in a validation or a test, and collects their features.

    Args:
        scorer: Compares generated with real images; `scorer.compute()` gives the scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    @abc.abstractmethod
    def latent_distribution(self) -> Distribution:
        """Return the distribution of latents, batch ()."""

    @abc.abstractmethod
    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), of latents (B, latent_dim)."""

    @torch.no_grad()
    def sample_latents(self, num: int) -> Tensor:
        """Return latents (num, latent_dim)."""
        return self.latent_distribution().sample((num,))

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
    """Scores a generator with Lightning's test loop; `scorer.figures` holds the scores then."""

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
