"""Stage pipeline: train a VAE, then a GAN initialized from it, in one run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from vaegan.config import to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ImageSource
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.paths import path_override
from vaegan.runtime.seeding import seeded
from vaegan.stages.gan import (
    build_scorer,
    check_sweep_metric,
    fit_gan,
    resolve_discriminator,
    resolve_training,
)
from vaegan.stages.gan_components import build_components, count_aggregate_images
from vaegan.stages.run_folder import locked_run_folder
from vaegan.stages.training_runs import PipelineRun
from vaegan.stages.vae import fit_vae, resolve_networks
from vaegan.training.devices import set_up_devices
from vaegan.training.stage_result import StageResult
from vaegan.vae.model import VAE


def train_pipeline(run: PipelineRun, output_dir: Path) -> StageResult:
    """Train a VAE, then a GAN initialized from it, in one run folder.

    Returns:
        Result of the GAN.

    Raises:
        ValueError: A requested option is unavailable. Raised before either stage is trained.
    """
    with prefix_errors("vae"):
        set_up_devices(run.vae.trainer)
    with prefix_errors("gan"):
        device = set_up_devices(run.gan.trainer)
    with locked_run_folder(run, "pipeline", output_dir) as run_folder:
        source = run.dataset.build()
        source.prepare_once()  # here, because the messages of its errors need no prefix
        with prefix_errors("gan"):
            check_gan(run, source)
        with prefix_errors("vae"):
            vae_result = fit_vae(run.vae_run(), run_folder, source)
        with prefix_errors("gan"):
            gan_run = run.gan_run(str(run_folder.path / "vae"))
            gan_result = fit_gan(gan_run, run_folder, device, source)
    folder = run_folder.path
    commands = [
        f"python train.py stage=sample {path_override('ckpt', folder / 'gan')}",
        f"python train.py stage=evaluate {path_override('ckpt', folder / 'vae')}",
        f"python train.py stage=evaluate {path_override('ckpt', folder / 'gan')}",
        f"python train.py stage=gan {path_override('vae_ckpt', folder)}",
    ]
    print_summary("VAE, then GAN", [vae_result, gan_result], run_folder.path, commands, run.plugins)
    return gan_result


def check_gan(run: PipelineRun, source: ImageSource) -> None:
    """Build the GAN from an untrained VAE, so that errors are raised before the VAE is trained."""
    data = ImageDataModule(source, run.gan.loader, run.seed)
    run = resolve_networks(run, data)
    discriminator = resolve_discriminator(run.discriminator, to_plain(run.encoder), data)
    run = replace(run, discriminator=discriminator)
    with seeded(run.seed):
        vae = VAE(source.image_shape, run)
    training = resolve_training(run.gan, data, vae)
    build_fresh = partial(VAE, source.image_shape, run)
    if training.warm_start.aggregate_posterior:  # checked, but not fitted, which would take long
        count_aggregate_images(len(data.splits["train"]), run.latent_dim)
        warm_start = replace(training.warm_start, aggregate_posterior=False)
        training = replace(training, warm_start=warm_start)
    cpu = torch.device("cpu")
    build_components(run, training, vae, build_fresh, data, run.seed, cpu)
    check_sweep_metric(run.sweep_metric, build_scorer(run.feature_extractor, vae, data))


@contextmanager
def prefix_errors(stage: str) -> Iterator[None]:
    """Prepend the stage to error messages, because its settings have this prefix."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{stage}: {error}") from error
