"""Stage gan: train a GAN whose generator starts as a VAE's decoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaegan.checkpoints.checkpoint import build_vae, header
from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.config import require, to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ImageSource, SplitName
from vaegan.gan.latents import AggregatePosterior
from vaegan.gan.module import GANComponents, GANModule
from vaegan.gan.training_config import GANConfig, GANTraining
from vaegan.gan.warm_start import Transfer, WarmStartConfig, start_discriminator, start_generator
from vaegan.images import to_float
from vaegan.metrics.feature_extractors import FeatureExtractor, build_feature_extractor
from vaegan.metrics.scorer import Scorer
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import display_path
from vaegan.runtime.seeding import seeded
from vaegan.stages.data_source import build_source
from vaegan.stages.run_folder import RunFolder, locked_run_folder
from vaegan.stages.training_runs import GANRun
from vaegan.training.devices import check_devices
from vaegan.training.fit import check_batches, fit
from vaegan.training.stage_result import StageResult
from vaegan.vae.model import NUM_CONSTANT, VAE

log = logging.getLogger(__name__)
SCORED: tuple[SplitName, ...] = ("val", "test")
NUM_AGGREGATE = 10_000  # training images whose latents a normal is fitted to


def train_gan(run: GANRun, output_dir: Path) -> StageResult:
    """Train a GAN, and say what to type next.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is trained.
    """
    check_devices(run.trainer)
    with locked_run_folder(run, output_dir) as there:
        result = fit_gan(run, there)
    print_summary(
        "GAN",
        [result],
        there.path,
        [f"python train.py stage=evaluate ckpt={display_path(there.path)}"],
    )
    return result


def fit_gan(run: GANRun, there: RunFolder) -> StageResult:
    """Train a GAN in the run folder's gan, or give what it has left there."""
    if (finished := there.result("gan")) is not None:
        return finished
    checkpoint = load_vae_checkpoint(run.vae_ckpt, "vae_ckpt")
    source = build_source(run.dataset, checkpoint, f"vae_ckpt={run.vae_ckpt}")
    data = load_data(source, run, run.seed)
    vae = checkpoint.build_vae()
    parts, transfers = build_components(run, run, vae, checkpoint.vae, data, run.seed)
    scorer = build_scorer(run.features, vae, data)
    head = header(
        "gan", checkpoint.image_shape, to_plain(run), checkpoint.vae, checkpoint.vae_flops
    )
    module = GANModule(parts, scorer, run, head)
    folder = there.open("gan")
    for transfer in transfers:
        log.info("%s", transfer)
    result = fit(run, module, data, folder, "val/frechet_distance", "min", [])
    floors = {split: scorer.real_statistics(split, module.device).floor for split in SCORED}
    result.floor = {
        f"{split}/{name}": value for split, floor in floors.items() for name, value in floor.items()
    }
    spent = checkpoint.training_flops() if uses_vae(run.warm_start, vae, transfers) else 0.0
    record = describe(run, source, scorer, result) | {"stage1_compute": spent / 1e15}
    record["config"] |= {"vae": checkpoint.vae}
    record["transfer"] = [transfer._asdict() for transfer in transfers]
    if is_rank_zero():
        write_json(folder / "run.json", record)
    there.close("gan", result)
    return result


def uses_vae(config: WarmStartConfig, vae: VAE, transfers: list[Transfer]) -> bool:
    """Whether the GAN gains anything from the VAE's training, so that its cost counts."""
    has_learned_prior = any(True for _ in vae.prior.parameters())
    takes_over = any(transfer.copied for transfer in transfers)
    return (
        takes_over
        or config.aggregate_posterior
        or config.reconstruction_weight > 0
        or has_learned_prior
    )


def describe(
    run: GANRun, source: ImageSource, scorer: Scorer, result: StageResult
) -> dict[str, Any]:
    """What was run and what came out: what stage=compare reads."""
    return {
        "label": run.label,
        "seed": run.seed,
        "dataset": type(source).Config.name,
        "features": scorer.network.name,
        "num_images": len(scorer.data.splits["val"]),
        "floor": scorer.real_statistics_by_split["val"].floor,
        "metrics": result.metrics,
        "config": to_plain(run),
    }


def load_data(source: ImageSource, training: GANTraining, seed: int) -> ImageDataModule:
    """The data of a GAN's training.

    Raises:
        ValueError: They are missing or damaged, fewer than a batch, or all used up by the discriminator's warm-up.
    """
    data = ImageDataModule(source, training.loader, seed)
    check_batches(training.trainer, data)
    num_batches = int(data.num_train_batches * training.trainer.limit_train_batches)
    num_images = training.trainer.max_epochs * num_batches * training.loader.batch_size
    training.settle(source.image_shape, num_images)
    every = training.score_every_n_images
    expected = f"at most the {num_images} images of the whole training, or null"
    require(every is None or every <= num_images, "score_every_n_images", expected, every)
    return data


def build_components(
    run: GANConfig,
    training: GANTraining,
    vae: VAE,
    vae_config: Mapping[str, Any],
    data: ImageDataModule,
    seed: int,
) -> tuple[GANComponents, list[Transfer]]:
    """The players, started warm or cold, and what each of them took over.

    A cold generator gets what a VAE gets before its first step: its output begins at the best constant image.

    Raises:
        ValueError: A network has not the layers or the shapes that the warm start wants.
    """
    warm_start = training.warm_start
    images = data.splits["train"].images
    with seeded(seed, "init", "cold"):
        fresh = build_vae(vae_config, vae.image_shape)
        fresh.initialize(to_float(images[: max(NUM_CONSTANT, fresh.prior.num_initial_images)]))
    generator, transfer = start_generator(vae, fresh, warm_start)
    with seeded(seed, "init", "discriminator"):
        discriminator = run.discriminator.build(vae.image_shape)
    transfers = [transfer, start_discriminator(vae, discriminator, warm_start)]
    aggregate = None
    if warm_start.aggregate_posterior:
        aggregate = AggregatePosterior(vae.latent_prior().event_shape[0])
        with seeded(seed, "aggregate"):
            aggregate.fit(vae, to_float(images[:NUM_AGGREGATE]))
    loss, penalty = run.adversarial_loss.build(), run.gradient_penalty.build(vae.image_shape)
    return GANComponents(
        vae, aggregate, generator, discriminator, loss, penalty, run.augmentation.build()
    ), transfers


def build_scorer(config: FeatureExtractor.Config | None, vae: VAE, data: ImageDataModule) -> Scorer:
    """Scorer against the val and test splits.

    Raises:
        ValueError: The feature network does not suit the data, or a split has too few images for it.
    """
    return Scorer(build_feature_extractor(config, vae, data.source.CLASSIFIER), data, SCORED)
