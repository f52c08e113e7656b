"""Seed torch's global generators before every batch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
import torch

from vaegan.runtime import seeding
from vaegan.runtime.evaluation_noise import PerImageNoise
from vaegan.runtime.seeding import RankInvariantNoise, seed_global


class PerStepSeeding(pl.Callback):
    """Seed torch's global generators before each batch from (seed, phase, iteration, rank).

    Noise and latents then do not depend on earlier draws: a resumed run draws the same values as an
    uninterrupted one, each rank has its own noise, and all validations use the same noise. The
    noise of an image does not depend on the number of devices (`seeding.drawing_noise`).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.noise_context = ExitStack()
        self.num_evaluated = 0  # images of this rank in the evaluation so far

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        iteration = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        rank = trainer.global_rank
        world_size = trainer.world_size
        seed_global(pl_module.device, self.seed, "train", iteration, rank)
        if world_size > 1:
            key = (self.seed, "train", iteration, 0)
            num_images = len(batch[0])
            seeding.step_noise = RankInvariantNoise(
                key, pl_module.device, rank, world_size, num_images
            )

    def on_train_batch_end(self, *args: Any) -> None:
        seeding.step_noise = None

    def on_exception(self, *args: Any) -> None:
        seeding.step_noise = None
        self.noise_context.close()

    def on_validation_epoch_start(self, *args: Any) -> None:
        self.num_evaluated = 0

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._seed_evaluation(trainer, pl_module, "val", batch, batch_idx)

    def on_validation_batch_end(self, *args: Any) -> None:
        self.noise_context.close()

    def on_test_epoch_start(self, *args: Any) -> None:
        self.num_evaluated = 0

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        self._seed_evaluation(trainer, pl_module, "test", batch, batch_idx)

    def on_test_batch_end(self, *args: Any) -> None:
        self.noise_context.close()

    def _seed_evaluation(
        self, trainer: Any, pl_module: Any, split: str, batch: Any, batch_idx: int
    ) -> None:
        """Seed the noise of the images of a batch of `SequentialBatches`."""
        seed_global(pl_module.device, self.seed, split, batch_idx, trainer.global_rank)
        num_images = len(batch[0])
        positions = self.num_evaluated + torch.arange(num_images, device=pl_module.device)
        indices = trainer.global_rank + trainer.world_size * positions
        self.noise_context.enter_context(PerImageNoise((self.seed, split), indices))
        self.num_evaluated += num_images
