"""Seed torch's global generators before every batch."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.seeding import RankInvariantNoise, seed_global


class PerStepSeeding(pl.Callback):
    """Seed torch's global generators before each batch from (seed, phase, iteration, rank).

    Noise and latents then do not depend on earlier draws: a resumed run draws the same values as an
    uninterrupted one, each rank has its own noise, and all validations use the same noise. In
    training, the noise of an image does not depend on the number of devices.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.noise_context = ExitStack()

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
            noise = RankInvariantNoise(key, pl_module.device, rank, world_size, num_images)
            self.noise_context.enter_context(noise)

    def on_train_batch_end(self, *args: Any) -> None:
        self.noise_context.close()

    def on_exception(self, *args: Any) -> None:
        self.noise_context.close()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        seed_global(pl_module.device, self.seed, "val", batch_idx, trainer.global_rank)

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        seed_global(pl_module.device, self.seed, "test", batch_idx, trainer.global_rank)
