"""Stage gan: train a GAN whose generator starts as a VAE's decoder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from vaegan.checkpoints import build_vae, header, load_vae_checkpoint
from vaegan.config import require, to_plain
from vaegan.data.datasets import ImageSource
from vaegan.data.module import ImageDataModule
from vaegan.images import ImageShape
from vaegan.models import VAE, Generator
from vaegan.modules.gan import GANModule
from vaegan.nets.discriminators import Discriminator
from vaegan.random import seeded
from vaegan.stages.fitting import build_source, check_batches, check_devices, fit, new_folder
from vaegan.stages.runs import GANRun, StageResult
from vaegan.stages.summary import print_summary
from vaegan.training import GANConfig, GANTraining


def train_gan(run: GANRun, output_dir: Path) -> StageResult:
    """Train a GAN, and say what to type next.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained.
    """
    result = fit_gan(run, output_dir)
    print_summary("GAN", [result], output_dir, [])
    return result


def fit_gan(run: GANRun, output_dir: Path) -> StageResult:
    """Train a GAN in `output_dir`/gan."""
    check_devices(run.trainer)
    checkpoint = load_vae_checkpoint(run.vae_ckpt, "vae_ckpt")
    source = build_source(run.dataset, checkpoint, f"vae_ckpt={run.vae_ckpt}")
    discriminator = build_discriminator(run, run.seed, checkpoint.image_shape)
    vae = checkpoint.build_vae()
    generator = build_generator(vae, checkpoint.vae, run.warm_start, run.seed)
    data = load_data(source, run, run.seed)
    module = GANModule(
        vae,
        generator,
        discriminator,
        run.adversarial_loss.build(),
        run.gradient_penalty.build(),
        run,
        header("gan", checkpoint.image_shape, to_plain(run), checkpoint.vae),
    )
    folder = new_folder(output_dir / "gan")
    return fit(run, module, data, folder, "val/frechet_distance", "min", [])


def load_data(source: ImageSource, training: GANTraining, seed: int) -> ImageDataModule:
    """The data of a GAN's training.

    Raises:
        ValueError: They are missing or damaged, fewer than a batch, or all used up by the discriminator's warm-up.
    """
    source.prepare()
    data = ImageDataModule(source, training.loader, seed)
    check_batches(training.trainer, data)
    num_batches = int(data.num_train_batches * training.trainer.limit_train_batches)
    num_images = training.trainer.max_epochs * num_batches * training.loader.batch_size
    require(
        training.discriminator_warmup < num_images,
        "discriminator_warmup",
        f"less than the {num_images} images of the whole training",
        training.discriminator_warmup,
    )
    return data


def build_generator(vae: VAE, vae_config: dict[str, Any], warm_start: bool, seed: int) -> Generator:
    """Generator with the architecture of the VAE's decoder and a copy of its weights, or with fresh ones."""
    if warm_start:
        return Generator(copy.deepcopy(vae.decoder), copy.deepcopy(vae.likelihood))
    with seeded(seed, "init", "cold"):
        fresh = build_vae(vae_config, vae.image_shape)
    return Generator(fresh.decoder, fresh.likelihood)


def build_discriminator(config: GANConfig, seed: int, image_shape: ImageShape) -> Discriminator:
    """Discriminator with fresh weights."""
    with seeded(seed, "init", "discriminator"):
        return config.discriminator.build(image_shape)
