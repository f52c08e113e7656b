"""Stage vae: train a VAE by its ELBO."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from vaegan.checkpoints.checkpoint import header
from vaegan.config import require, to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.images import to_float
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import display_path
from vaegan.runtime.seeding import seeded
from vaegan.stages.run_folder import RunFolder, locked_run_folder
from vaegan.stages.tool_configs import EvaluateRun
from vaegan.stages.training_runs import VAERun
from vaegan.training.devices import check_devices
from vaegan.training.fit import check_batches, fit
from vaegan.training.stage_result import StageResult
from vaegan.training.trainer_config import DeviceConfig
from vaegan.vae.bounds import kl_method
from vaegan.vae.model import NUM_CONSTANT, VAE
from vaegan.vae.module import VAEModule

NUM_NLL_IMAGES, NUM_NLL_SAMPLES = (
    1000,
    100,
)  # of sweep_metric=val/nll: enough to rank models, in seconds
log = logging.getLogger(__name__)


def train_vae(run: VAERun, output_dir: Path) -> StageResult:
    """Train a VAE, and say what to type next.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained.
    """
    check_devices(run.trainer)
    with locked_run_folder(run, output_dir) as there:
        result = fit_vae(run, there)
        if run.sweep_metric == "val/nll":
            result.metrics["val/nll"] = validation_nll(run, there.path)
    folder = display_path(there.path)
    commands = [
        f"python train.py stage=evaluate ckpt={folder}",
        f"python train.py stage=gan vae_ckpt={folder}",
    ]
    print_summary("VAE", [result], there.path, commands)
    return result


def fit_vae(run: VAERun, folder: RunFolder) -> StageResult:
    """Train a VAE in `folder`/vae, or give what it has left there."""
    if (result := folder.result("vae")) is not None:
        return result
    source = run.dataset.build()
    data = ImageDataModule(source, run.loader, run.seed)
    check_batches(run.trainer, data)
    with seeded(run.seed, "init"):
        vae = VAE(run, source.image_shape)
        images = initial_images(vae, data)
        vae.initialize(images)
        log.info("KL(q(z|x) || p(z)): %s", kl_method(vae.encode(images[:2]), vae.latent_prior()))
    plain = to_plain(run)
    module = VAEModule(
        vae, run.objective.build(), run, header("vae", source.image_shape, plain, plain)
    )
    monitor = f"val/{run.objective.bound_name}"
    callbacks: list[pl.Callback] = []
    if run.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=run.early_stopping_patience))
    result = fit(run, module, data, folder.open("vae"), monitor, "max", callbacks)
    folder.close("vae", result)
    return result


def validation_nll(run: VAERun, folder: Path) -> float:
    """Importance-weighted -log p(x) of the best checkpoint on images of the val split, nats per image: for sweeps."""
    from vaegan.stages.evaluate import evaluate

    if is_rank_zero():
        shutil.rmtree(folder / "evaluate", ignore_errors=True)  # of a run that was stopped here
    num_images = min(NUM_NLL_IMAGES, len(run.dataset.build().split("val").images))
    devices = DeviceConfig(
        **{name: getattr(run.trainer, name) for name in DeviceConfig.__dataclass_fields__}
    )
    evaluation = EvaluateRun(
        ckpt=str(folder),
        split="val",
        num_images=num_images,
        num_samples=NUM_NLL_SAMPLES,
        seed=run.seed,
        trainer=devices,
    )
    return evaluate(evaluation, folder).metrics["val/nll"]


def initial_images(vae: VAE, data: ImageDataModule) -> Tensor:
    """Training images that the model starts from, in [0, 1], (N, C, H, W).

    Raises:
        ValueError: The prior wants more than there are.
    """
    wanted, there = vae.prior.num_initial_images, len(data.splits["train"])
    require(
        wanted <= there, "prior.num_pseudo_inputs", f"at most the {there} training images", wanted
    )
    return to_float(data.splits["train"].images[torch.randperm(there)[: max(wanted, NUM_CONSTANT)]])
