"""Stage vae: wires an objective to Lightning. The bound that is logged has beta = 1, whatever the loss weighs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import Optimizer

from vaegan.data.datamodule import Batch
from vaegan.training.flops import FlopCounts
from vaegan.training.gradients import gradient_norm, is_logged
from vaegan.vae.model import VAE
from vaegan.vae.objectives import Objective, ObjectiveOutput
from vaegan.vae.training_config import VAETraining


class VAEModule(pl.LightningModule):
    """Trains a VAE.

    Args:
        vae: The model.
        objective: What to minimize.
        training: How to train it.
        header: What a checkpoint says of itself (`vaegan.checkpoints.checkpoint.header`).
    """

    def __init__(
        self, vae: VAE, objective: Objective, training: VAETraining, header: dict[str, Any]
    ) -> None:
        super().__init__()
        self.objective = objective
        self.vae = vae.to(memory_format=torch.channels_last)
        self.training_config, self.header = training, header
        self.flops = FlopCounts()
        self.terms: dict[str, Tensor] = {}  # what the next optimizer step follows from

    def configure_optimizers(self) -> Any:
        num_batches = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = self.training_config.optimizer.build(
            self.vae.parameters(), lambda: num_batches
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step", "name": "train/lr"}]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, _ = batch
        epoch = self.current_epoch + batch_idx / self.trainer.num_training_batches
        beta = self.objective.config.beta_at(epoch)
        with self.flops.counted("forward"):
            estimate = self.objective(self.vae, images, beta)
        elbo = estimate.elbo
        self.terms = {
            "train/log_likelihood": elbo.log_likelihood,
            "train/kl": elbo.kl,
            "train/loss": estimate.loss,
        }
        if is_logged(self.trainer):
            report = self.report(estimate, "train")
            self.log_dict(
                {tag: report.pop(tag) for tag in [f"train/{self.objective.BOUND}"]},
                prog_bar=True,
                sync_dist=True,
            )
            self.log_dict(
                report | {"train/loss": estimate.loss.detach(), "train/beta": beta}, sync_dist=True
            )
        return estimate.loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if is_logged(self.trainer):
            self.log("train/grad_norm", gradient_norm(self.vae.parameters(), self.trainer))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        images, _ = batch
        size = (
            len(images)
            if self.objective.num_samples == 1
            else self.training_config.loader.batch_size
        )
        for part in images.split(
            size
        ):  # with K samples of each, no more are decoded at once than in training
            report = self.report(self.objective(self.vae, part, beta=1.0), split)
            self.log_dict(report, prog_bar=split == "val", sync_dist=True, batch_size=len(part))

    def report(self, estimate: ObjectiveOutput, split: str) -> dict[str, Tensor]:
        """What is logged of a batch, by tag.

        Raises:
            ValueError: The bound of a batch that is not trained on is not a number, or infinite.
        """
        values = {
            self.objective.BOUND: estimate.bound,
            "elbo": estimate.elbo.value,
            "log_likelihood": estimate.elbo.log_likelihood,
            "kl": estimate.elbo.kl,
        }
        means = {f"{split}/{name}": value.detach().mean() for name, value in values.items()}
        bound = means[f"{split}/{self.objective.BOUND}"]
        if split != "train" and not bound.isfinite():
            raise ValueError(
                f"{split}/{self.objective.BOUND} is {bound.item()} in epoch {self.current_epoch}: the training has "
                "diverged; lower optimizer.lr, or raise the likelihood's min_scale. The checkpoints are untouched"
            )
        return means

    def latent_distribution(self) -> Distribution:
        """What the latents of pictures are drawn from, batch (): the prior."""
        return self.vae.latent_prior()

    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), of latents (B, latent_dim)."""
        return self.vae.decode(z).mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        per_batch = (
            3 * self.flops.counts.get("forward", 0) * self.trainer.world_size
        )  # backward costs twice forward
        checkpoint["vaegan"] = self.header | {
            "vae_flops": float(per_batch * self.trainer.global_step)
        }
