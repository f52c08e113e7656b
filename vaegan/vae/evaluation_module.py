"""Stage evaluate: wires the scores of a VAE and of a GAN to Lightning's test loop, over any number of devices."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torchmetrics import CatMetric, Metric, MetricCollection

from vaegan.data.datamodule import Batch
from vaegan.vae.evaluation import Scores, figures, score
from vaegan.vae.model import VAE


class EvaluationModule(pl.LightningModule):
    """Scores every image once, whatever the number of devices; then `figures` holds the figures of the whole set.

    Args:
        vae: The model.
        num_samples: Samples of each image.
        chunk_size: Latents that are decoded at once.
        target_seed: Of binarization and dequantization, a function of it and of each image.
    """

    def __init__(self, vae: VAE, num_samples: int, chunk_size: int, target_seed: int) -> None:
        super().__init__()
        self.vae = vae
        self.num_samples, self.chunk_size, self.target_seed = num_samples, chunk_size, target_seed
        gather: dict[str, Metric | MetricCollection] = {
            name: CatMetric(nan_strategy="disable") for name in Scores._fields
        }
        self.scores = MetricCollection(gather, compute_groups=False)
        self.figures: dict[str, float] = {}

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        images, _ = batch
        target = self.vae.likelihood.target(images, self.target_seed)
        self.vae.likelihood.check(target)
        scores = score(self.vae, target, self.num_samples, self.chunk_size)
        for name, values in scores._asdict().items():
            self.scores[name].update(values)

    def on_test_epoch_end(self) -> None:
        gathered: dict[str, Any] = self.scores.compute()
        self.figures = figures(self.vae, Scores(**gathered))
        self.scores.reset()
