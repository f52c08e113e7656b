"""Stage vae: wires the ELBO to Lightning. The ELBO that is logged has beta = 1, whatever the loss weighs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from vaegan.data.module import Batch
from vaegan.models import VAE, Generator
from vaegan.modules.steps import gradient_norm, is_logged
from vaegan.objectives import elbo, training_loss
from vaegan.training import VAETraining


class VAEModule(pl.LightningModule):
    """Trains a VAE.

    Args:
        vae: The model.
        training: How to train it.
        header: What a checkpoint says of itself (`vaegan.checkpoints.header`).
    """

    def __init__(self, vae: VAE, training: VAETraining, header: dict[str, Any]) -> None:
        super().__init__()
        self.vae = vae.to(memory_format=torch.channels_last)
        self.training_config, self.header = training, header

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.training_config.optimizer.build(
            self.vae.parameters(), int(self.trainer.estimated_stepping_batches)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step", "name": "train/lr"}]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, _ = batch
        terms = elbo(self.vae, images)
        epoch = self.current_epoch + batch_idx / self.trainer.num_training_batches
        beta = self.training_config.objective.beta_at(epoch)
        loss = training_loss(terms, beta)
        if is_logged(self.trainer):
            self.log("train/elbo", terms.value.mean(), prog_bar=True, sync_dist=True)
            self.log_dict(
                {
                    "train/log_likelihood": terms.log_likelihood.mean(),
                    "train/kl": terms.kl.mean(),
                    "train/loss": loss.detach(),
                    "train/beta": beta,
                },
                sync_dist=True,
            )
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if is_logged(self.trainer):
            self.log("train/grad_norm", gradient_norm(self.vae.parameters()))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        images, _ = batch
        terms = elbo(self.vae, images)
        size = len(images)
        self.log(f"{split}/elbo", terms.value.mean(), prog_bar=split == "val", sync_dist=True, batch_size=size)
        self.log(f"{split}/log_likelihood", terms.log_likelihood.mean(), sync_dist=True, batch_size=size)
        self.log(f"{split}/kl", terms.kl.mean(), sync_dist=True, batch_size=size)

    @property
    def average(self) -> Generator:
        """The decoder as a generator: what pictures are drawn with."""
        return Generator(self.vae.decoder, self.vae.likelihood)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vaegan"] = self.header
