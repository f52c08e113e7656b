"""Callbacks: stateless noise, pictures."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from vaegan.images import to_uint8
from vaegan.pictures import picture_grids
from vaegan.random import SharedDraws, seed_global, seeded


class StatelessNoise(pl.Callback):
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
            self.shared.enter_context(SharedDraws(key, pl_module.device, rank, world_size, len(batch[0])))

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


class Pictures(pl.Callback):
    """Picture grids at every validation: to TensorBoard, and as PNG files named by the number of batches trained on.

    The latents are the same at every time and in both stages: the first picture of a warm-started GAN is the VAE's.

    Args:
        folder: Where the PNG files go: folder/samples/000550.png.
        images: Real images to reconstruct, in [0, 1], (N, C, H, W).
        seed: Of the latents.
    """

    def __init__(self, folder: Path, images: Tensor, seed: int) -> None:
        self.folder, self.images, self.seed = folder, images, seed

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        images = self.images.to(pl_module.device, memory_format=torch.channels_last)
        with seeded(self.seed, "pictures"):
            grids = picture_grids(pl_module.vae, pl_module.latent_distribution(), pl_module.average, images)
        step = trainer.fit_loop.total_batch_idx + 1
        for name, grid in grids.items():
            path = self.folder / name / f"{step:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image(to_uint8(grid).cpu()).save(path)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, grid, step)
