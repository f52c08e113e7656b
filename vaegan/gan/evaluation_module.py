"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

import lightning.pytorch as pl

from vaegan.data.datamodule import Batch
from vaegan.gan.generator import Generator
from vaegan.gan.latents import Latents
from vaegan.metrics.scorer import Scorer


class GenerationModule(pl.LightningModule):
    """Generates as many images as there are real ones; then `scorer.figures` holds their scores.

    Args:
        generator: Makes the images.
        latents: What from.
        scorer: Compares them with the real ones.
    """

    def __init__(self, generator: Generator, latents: Latents, scorer: Scorer) -> None:
        super().__init__()
        self.generator, self.latents, self.scorer = generator, latents, scorer

    def on_test_epoch_start(self) -> None:
        self.scorer.start("test", self.device)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.scorer.update(self.generator(self.latents().sample((len(batch[0]),))))

    def on_test_epoch_end(self) -> None:
        self.scorer.compute()
