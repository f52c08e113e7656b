"""Evaluation of a VAE in Lightning's test loop, on any number of devices."""

from __future__ import annotations

import lightning.pytorch as pl
from torchmetrics import CatMetric, MetricCollection

from vaegan.data.datamodule import Batch
from vaegan.vae.evaluation import ImageScores, score_images, summarize_scores
from vaegan.vae.model import VAE, in_full_precision
from vaegan.vae.reconstruction import RECONSTRUCTION_SCORES, compare_reconstructions


class EvaluationModule(pl.LightningModule):
    """Score every image once and compute the metrics of the whole data set.

    Args:
        vae: The model.
        num_samples: Posterior samples per image.
        chunk_size: Number of latents decoded at once.
        target_seed: Random seed of binarization and dequantization, which are functions of the seed
            and the image.

    Attributes:
        metrics: Result of `summarize_scores`, and means of `compare_reconstructions`; empty before
            the end of the test loop.
    """

    def __init__(self, vae: VAE, num_samples: int, chunk_size: int, target_seed: int) -> None:
        super().__init__()
        self.vae = vae
        self.num_samples = num_samples
        self.chunk_size = chunk_size
        self.target_seed = target_seed
        names = (*ImageScores._fields, *RECONSTRUCTION_SCORES)
        self.scores = MetricCollection(
            {name: CatMetric(nan_strategy="disable") for name in names}, compute_groups=False
        )
        self.metrics: dict[str, float] = {}

    @in_full_precision()
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        images, _ = batch
        target = self.vae.likelihood.target(images, self.target_seed)
        self.vae.likelihood.check(target)
        scores = score_images(self.vae, target, self.num_samples, self.chunk_size)
        reconstructions = self.vae.decode(scores.latent_mean).mean
        similarity = compare_reconstructions(reconstructions, images)
        for name, values in (scores._asdict() | similarity).items():
            self.scores[name].update(values)

    def on_test_epoch_end(self) -> None:
        scores = {name: metric.compute() for name, metric in self.scores.items()}
        similarity = {name: scores.pop(name) for name in RECONSTRUCTION_SCORES}
        self.metrics = summarize_scores(ImageScores(**scores), self.vae.likelihood)
        self.metrics |= {
            name: float(values.double().mean())
            for name, values in similarity.items()
            if len(values)
        }
        self.scores.reset()
