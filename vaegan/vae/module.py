"""Training of a VAE in Lightning. The logged bounds always have beta = 1."""

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
from vaegan.training.step_graphs import StepGraphs
from vaegan.vae.model import VAE, in_full_precision
from vaegan.vae.objectives import Objective, ObjectiveOutput
from vaegan.vae.training_config import VAETraining


class VAEModule(pl.LightningModule):
    """Train a VAE with an objective.

    Args:
        vae: The model.
        objective: Training loss and reported bound.
        training: Settings of optimizer and batches.
        header: Description of the run that is stored in its checkpoints
            (`vaegan.checkpoints.checkpoint.header`).

    Attributes:
        terms: Loss terms of the next optimizer step by tag, checked by `NonFiniteGuard`.
        progress_bar_tags: Metrics that the progress bar shows.
        trained_networks: Networks that `trainer.compile` compiles.
        step_graphs: CUDA graphs of the steps, set by `StepOptions`; None: steps are executed.
    """

    def __init__(
        self, vae: VAE, objective: Objective, training: VAETraining, header: dict[str, Any]
    ) -> None:
        super().__init__()
        self.objective = objective
        self.vae = vae.to(memory_format=torch.channels_last)
        self.trained_networks = (self.vae.encoder, self.vae.decoder)
        self.training_config = training
        self.header = header
        self.flops = FlopCounts()
        bound = objective.bound_name
        self.progress_bar_tags = (f"train/{bound}", f"val/{bound}", "val/log_likelihood", "val/kl")
        self.terms: dict[str, Tensor] = {}
        self.step_graphs: StepGraphs | None = None

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
        if self.step_graphs is None:
            output = self.compute_objective(images, beta)
        else:
            parameters = list(self.vae.parameters())
            output = self.step_graphs.run("vae", self.compute_gradients, parameters, images, beta)
        self.terms = {
            "train/log_likelihood": output.elbo.log_likelihood,
            "train/kl": output.elbo.kl,
            "train/loss": output.loss,
        }
        if is_logged(self.trainer):
            metrics = self.mean_metrics(output, "train")
            metrics["train/loss"] = output.loss.detach()
            self.log_dict(metrics | {"train/beta": beta}, sync_dist=True)
        return output.loss

    def compute_objective(self, images: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        """Return the loss and the bounds of a training batch."""
        with self.flops.counted("forward"):
            return self.objective(self.vae, images, beta)

    def compute_gradients(self, images: Tensor, beta: Tensor | float) -> ObjectiveOutput:
        """Return the loss and the bounds of a training batch, after the backward pass."""
        output = self.compute_objective(images, beta)
        with in_full_precision():  # as in Lightning, which leaves autocast before it
            output.loss.backward()
        return output

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Compute the gradients, unless the training step has computed them."""
        if self.step_graphs is None:
            super().backward(loss, *args, **kwargs)
        else:
            self.step_graphs.restore_gradients()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if is_logged(self.trainer):
            self.log("train/grad_norm", gradient_norm(self.vae.parameters(), self.trainer))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "test")

    @in_full_precision()
    def _evaluate(self, batch: Batch, split: str) -> None:
        images, _ = batch
        size = len(images)
        if self.objective.num_samples > 1:  # decode at most as many latents at once as in training
            size = self.training_config.loader.images_per_step
        for part in images.split(size):
            metrics = self.mean_metrics(self.objective(self.vae, part, beta=1.0), split)
            self._check_bound(metrics, split)
            # Lightning averages the numbers of images over ranks, and rounds down to an integer.
            weight = len(part) * self.trainer.world_size
            self.log_dict(metrics, sync_dist=True, batch_size=weight)

    def mean_metrics(self, output: ObjectiveOutput, split: str) -> dict[str, Tensor]:
        """Return batch means of the bound, the ELBO and its terms, in nats per image, by tag."""
        values = {
            self.objective.bound_name: output.bound,
            "elbo": output.elbo.value,
            "log_likelihood": output.elbo.log_likelihood,
            "kl": output.elbo.kl,
        }
        return {f"{split}/{name}": value.detach().mean() for name, value in values.items()}

    def _check_bound(self, metrics: dict[str, Tensor], split: str) -> None:
        """Raise a ValueError if the mean bound of a batch is NaN or infinite."""
        tag = f"{split}/{self.objective.bound_name}"
        if not metrics[tag].isfinite():
            raise ValueError(
                f"{tag} is {metrics[tag].item()} in epoch {self.current_epoch}: training has "
                "diverged. Lower optimizer.lr, or raise likelihood.min_scale if the likelihood has "
                "it. Saved checkpoints are not affected"
            )

    def latent_distribution(self) -> Distribution:
        """Return the distribution of the latents of generated images: the prior, batch shape ()."""
        return self.vae.latent_prior()

    def generate(self, z: Tensor) -> Tensor:
        """Return images in [0, 1], (B, C, H, W), from latents (B, latent_dim)."""
        return self.vae.decode(z).mean

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        forward_flops = self.flops.counts.get("forward", 0)
        per_batch = 3 * forward_flops * self.trainer.world_size  # backward costs twice forward
        num_flops = float(per_batch * self.trainer.global_step)
        checkpoint["vaegan"] = self.header | {"vae_flops": num_flops}
