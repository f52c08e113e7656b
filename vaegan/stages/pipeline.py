"""Stage pipeline: a VAE, then a GAN that starts from it, in one run folder."""

from __future__ import annotations

from pathlib import Path

from vaegan.stages.gan import build_discriminator, fit_gan
from vaegan.stages.runs import PipelineRun, StageResult
from vaegan.stages.summary import print_summary
from vaegan.stages.vae import fit_vae


def train_pipeline(run: PipelineRun, output_dir: Path) -> StageResult:
    """Train both stages, and say what to type next; returns the GAN's result.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained, in either stage.
    """
    build_discriminator(
        run, run.seed, run.dataset.build().image_shape
    )  # what cannot be built is said before the VAE
    vae = fit_vae(run.vae_run(), output_dir)
    gan = fit_gan(run.gan_run(str(vae.checkpoint)), output_dir)
    print_summary("VAE, then GAN", [vae, gan], output_dir, [])
    return gan
