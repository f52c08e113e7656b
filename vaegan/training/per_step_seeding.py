"""PLACEHOLDER DOCSTRING."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl

from vaegan.runtime.seeding import RankInvariantNoise, seed_global


class PerStepSeeding(pl.Callback):
    """Starts torch's global generators anew before each batch, from f(seed, what, iteration, rank).

    Noise and latents then depend on nothing that came before: a resumed run draws what an uninterrupted one draws,
    every rank draws its own, and each validation uses the same noise. In training the noise of an image does not depend
    on the number of devices.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.shared = ExitStack()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        iteration = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        rank, world_size = trainer.global_rank, trainer.world_size
        seed_global(pl_module.device, self.seed, "train", iteration, rank)
        if world_size > 1:
            key = (self.seed, "train", iteration, 0)
            self.shared.enter_context(
                RankInvariantNoise(key, pl_module.device, rank, world_size, len(batch[0]))
            )

    def on_train_batch_end(self, *args: Any) -> None:
        self.shared.close()

    def on_exception(self, *args: Any) -> None:
        self.shared.close()

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        seed_global(pl_module.device, self.seed, "val", batch_idx, trainer.global_rank)

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        seed_global(pl_module.device, self.seed, "test", batch_idx, trainer.global_rank)
