"""Stage vae: train a VAE by its ELBO."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping

from vaegan.checkpoints import header
from vaegan.config import to_plain
from vaegan.data.module import ImageDataModule
from vaegan.models import VAE
from vaegan.modules.vae import VAEModule
from vaegan.random import seeded
from vaegan.stages.fitting import check_batches, check_devices, fit, new_folder
from vaegan.stages.runs import StageResult, VAERun
from vaegan.stages.summary import print_summary, shown


def train_vae(run: VAERun, output_dir: Path) -> StageResult:
    """Train a VAE, and say what to type next.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained.
    """
    result = fit_vae(run, output_dir)
    print_summary("VAE", [result], output_dir, [f"python train.py stage=gan vae_ckpt={shown(output_dir)}"])
    return result


def fit_vae(run: VAERun, output_dir: Path) -> StageResult:
    """Train a VAE in `output_dir`/vae."""
    check_devices(run.trainer)
    source = run.dataset.build()
    source.prepare()
    data = ImageDataModule(source, run.loader, run.seed)
    check_batches(run.trainer, data)
    with seeded(run.seed, "init"):
        vae = VAE(run, source.image_shape)
    plain = to_plain(run)
    module = VAEModule(vae, run, header("vae", source.image_shape, plain, plain))
    callbacks: list[pl.Callback] = []
    if run.early_stopping_patience is not None:
        callbacks.append(EarlyStopping("val/elbo", mode="max", patience=run.early_stopping_patience))
    return fit(run, module, data, new_folder(output_dir / "vae"), "val/elbo", "max", callbacks)
