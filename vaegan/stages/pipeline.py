"""Stage pipeline: a VAE, then a GAN that starts from it, in one run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vaegan.data.datamodule import ImageDataModule
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.paths import display_path
from vaegan.runtime.seeding import seeded
from vaegan.stages.gan import build_components, build_scorer, fit_gan, resolve_training
from vaegan.stages.run_folder import locked_run_folder
from vaegan.stages.training_runs import PipelineRun
from vaegan.stages.vae import fit_vae
from vaegan.training.devices import check_devices
from vaegan.training.stage_result import StageResult
from vaegan.vae.model import VAE


def train_pipeline(run: PipelineRun, output_dir: Path) -> StageResult:
    """Train both stages, and print the next commands; return the GAN's result.

    Raises:
        ValueError: A requested option is unavailable. Raised before either stage is trained.
    """
    with errors_of_stage("vae"):
        check_devices(run.vae.trainer)
    with errors_of_stage("gan"):
        check_devices(run.gan.trainer)
    with locked_run_folder(run, "pipeline", output_dir) as run_folder:
        with errors_of_stage("gan"):
            check_gan(run)
        with errors_of_stage("vae"):
            vae_result = fit_vae(run.vae_run(), run_folder)
        with errors_of_stage("gan"):
            gan_result = fit_gan(run.gan_run(str(vae_result.checkpoint)), run_folder)
    folder = display_path(run_folder.path)
    commands = [
        f"python train.py stage=evaluate ckpt={folder}/vae",
        f"python train.py stage=evaluate ckpt={folder}/gan",
        f"python train.py stage=gan vae_ckpt={folder}",
    ]
    print_summary("VAE, then GAN", [vae_result, gan_result], run_folder.path, commands)
    return gan_result


def check_gan(run: PipelineRun) -> None:
    """Build the GAN from an untrained VAE, so that errors come before the VAE is trained."""
    source = run.dataset.build()
    data = ImageDataModule(source, run.gan.loader, run.seed)
    training = resolve_training(run.gan, data)
    with seeded(run.seed):
        vae = VAE(source.image_shape, run)
    build_fresh = partial(VAE, source.image_shape, run)
    build_components(run, training.warm_start, vae, build_fresh, data, run.seed)
    build_scorer(run.feature_extractor, vae, data)


@contextmanager
def errors_of_stage(stage: str) -> Iterator[None]:
    """Prepend the stage to an error's message, as its settings stand under its name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{stage}: {error}") from error
