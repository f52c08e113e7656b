"""Stage pipeline: a VAE, then a GAN that starts from it, in one run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaegan.config import to_plain
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.paths import display_path
from vaegan.runtime.seeding import seeded
from vaegan.stages.gan import build_components, build_scorer, fit_gan, load_data
from vaegan.stages.run_folder import locked_run_folder
from vaegan.stages.training_runs import PipelineRun
from vaegan.stages.vae import fit_vae
from vaegan.training.devices import check_devices
from vaegan.training.stage_result import StageResult
from vaegan.vae.model import VAE


def train_pipeline(run: PipelineRun, output_dir: Path) -> StageResult:
    """Train both stages, and say what to type next; returns the GAN's result.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained, in either stage.
    """
    for stage, training in (("vae", run.vae), ("gan", run.gan)):
        with naming(stage):
            check_devices(training.trainer)
    with locked_run_folder(run, output_dir) as there:
        with naming("gan"):
            check_gan(run)
        with naming("vae"):
            vae = fit_vae(run.vae_run(), there)
        with naming("gan"):
            gan = fit_gan(run.gan_run(str(vae.checkpoint)), there)
    folder = display_path(there.path)
    commands = [f"python train.py stage=evaluate ckpt={folder}/{stage}" for stage in ("vae", "gan")]
    commands.append(f"python train.py stage=gan vae_ckpt={folder}")
    print_summary("VAE, then GAN", [vae, gan], there.path, commands)
    return gan


def check_gan(run: PipelineRun) -> None:
    """Build what the GAN needs beside the VAE: what cannot be had is said before the VAE is trained."""
    source = run.dataset.build()
    data = load_data(source, run.gan, run.seed)
    with seeded(run.seed):
        vae = VAE(run, source.image_shape)
    build_components(run, run.gan, vae, to_plain(run.vae_run()), data, run.seed)
    build_scorer(run.feature_extractor, vae, data)


@contextmanager
def naming(stage: str) -> Iterator[None]:
    """Puts the stage before an error's message, since its settings stand under its name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{stage}: {error}") from error
