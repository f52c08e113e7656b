"""Stage evaluate: compute the metrics of a trained VAE or GAN.

For a VAE: likelihood and latent-space metrics, comparable with published results. For a GAN: scores
of generated images, together with the same scores of real images.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from vaegan.checkpoints.checkpoint import Checkpoint, load_checkpoint
from vaegan.checkpoints.find_checkpoint import find_checkpoint
from vaegan.config import flatten, from_plain, require, to_plain
from vaegan.data.batches import LoaderConfig
from vaegan.data.crops import ImageDataset
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import Split, SplitName
from vaegan.gan.evaluation_module import GenerationModule
from vaegan.images import to_float
from vaegan.metrics.feature_extractors import FeatureExtractor, build_feature_extractor
from vaegan.metrics.scorer import Scorer
from vaegan.reports.run_summary import print_metrics
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.seeding import seeded
from vaegan.runtime.signals import catch_signals
from vaegan.stages.data_source import build_source
from vaegan.stages.run_folder import create_empty_folder
from vaegan.stages.tool_configs import QUICK_IMAGES, EvaluateRun
from vaegan.training.devices import (
    device_options,
    disable_signal_handlers,
    set_up_devices,
    silence_warnings,
)
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.progress_bar import TestProgressLog, is_bar_shown
from vaegan.training.stage_result import StageResult
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.training.trainer_config import DeviceConfig
from vaegan.vae.bounds import kl_method
from vaegan.vae.evaluation import split_kl
from vaegan.vae.evaluation_module import EvaluationModule
from vaegan.vae.model import VAE

NUM_SPLIT_KL_IMAGES = 1000  # images for the KL split; its cost is quadratic in their number
# Importance samples per batch of images: a few seconds on a CPU, so that progress is shown soon.
SAMPLES_PER_BATCH = 20_000


def evaluate(run: EvaluateRun, output_dir: Path) -> StageResult:
    """Evaluate a trained VAE or GAN: print its metrics and write evaluation.json.

    Raises:
        ValueError: A requested option is unavailable. Raised before the evaluation starts.
    """
    set_up_devices(run.trainer)
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    run = run.resolve_sweep_metric(checkpoint.stage)
    data = load_data(run, checkpoint)
    module = build_module(run, checkpoint, data)
    output_dir = broadcast(output_dir)
    folder = output_dir / "evaluate"
    if is_rank_zero():
        create_empty_folder(folder)
    logger = TensorBoardLogger(output_dir, name=folder.name, version="", default_hp_metric=False)
    trainer = build_trainer(run.trainer, run.seed, logger)
    with catch_signals():
        trainer.test(module, data, verbose=False)

    if isinstance(module, EvaluationModule):
        kl_metrics, details = vae_metrics(run, module.vae.cpu(), data)
        scores = module.metrics | kl_metrics
    else:
        scores, details = module.scorer.scores, gan_details(run.split, module.scorer)
    metrics = {f"{run.split}/{name}": value for name, value in scores.items()}
    if trainer.is_global_zero:
        record = describe(run, checkpoint, data) | details | {"figures": metrics}
        write_json(folder / "evaluation.json", record)
        hparams = flatten(checkpoint.vae) | flatten(to_plain(run), "evaluate.")
        logger.log_hyperparams(hparams, metrics=metrics)
        logger.finalize("success")
        print_metrics(metrics, record, folder)
    return StageResult(folder, checkpoint.path, metrics, tag=run.sweep_metric)


def load_data(run: EvaluateRun, checkpoint: Checkpoint) -> ImageDataModule:
    """Return a data module whose test split contains the images to evaluate on.

    Raises:
        ValueError: The data set does not fit the checkpoint, or has too few images.
    """
    source = build_source(run.dataset, checkpoint, f"ckpt={run.ckpt}")
    batch_size = run.batch_size
    if checkpoint.stage == "vae":
        batch_size = min(batch_size, max(1, SAMPLES_PER_BATCH // run.samples_per_image()))
    loader = LoaderConfig(batch_size=1, eval_batch_size=batch_size)
    data = ImageDataModule(source, loader, run.seed)
    size = list(source.image_shape[1:])
    split = select_images(source.split(cast(SplitName, run.split)), run, checkpoint.stage)
    num_images = len(split.images)
    num_devices = run.trainer.devices * run.trainer.num_nodes
    expected = f"at most {num_images}, the number of images"
    require(num_devices <= num_images, "trainer.devices", expected, num_devices)
    data.splits["test"] = ImageDataset(split, size)
    if run.split == "train":  # the real-data baseline must use other images
        data.splits["train"] = ImageDataset(source.split("test"), size)
    return data


def select_images(split: Split, run: EvaluateRun, stage: str) -> Split:
    """Return the images of a split to evaluate on.

    Raises:
        ValueError: The split has too few images.
    """
    num_available = len(split.images)
    if run.num_images is not None:
        expected = f"at most {num_available}, the number of images in the split, or null"
        require(run.num_images <= num_available, "num_images", expected, run.num_images)
        indices = torch.arange(run.num_images)
    elif stage == "vae" and not run.full and num_available > QUICK_IMAGES:
        indices = torch.arange(QUICK_IMAGES) * num_available // QUICK_IMAGES
    else:
        return split
    return Split(split.images[indices], split.labels[indices])


def build_module(
    run: EvaluateRun, checkpoint: Checkpoint, data: ImageDataModule
) -> EvaluationModule | GenerationModule:
    """Build the module that evaluates a VAE or a GAN.

    A GAN is scored with the feature extractor of its training unless `run` sets another one.
    """
    if checkpoint.stage == "vae":
        vae = checkpoint.build_vae()
        return EvaluationModule(vae, run.samples_per_image(), run.chunk_size, run.target_seed)
    config = run.feature_extractor
    trained = checkpoint.run["feature_extractor"]
    if config is None and trained is not None:
        config = from_plain(FeatureExtractor.Config, trained, "feature_extractor")
    extractor = build_feature_extractor(config, checkpoint.build_vae(), data.source.CLASSIFIER)
    scorer = Scorer(extractor, data, ("test",))
    return GenerationModule(checkpoint.build_generator(), checkpoint.build_latents(), scorer)


@torch.no_grad()
def vae_metrics(
    run: EvaluateRun, vae: VAE, data: ImageDataModule
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the terms of `split_kl`, and details of how the metrics are computed."""
    images = data.splits["test"].images[:NUM_SPLIT_KL_IMAGES]
    with seeded(run.seed, "split_kl"):
        targets = vae.likelihood.target(to_float(images), run.target_seed)
        features = torch.cat([vae.encoder(batch) for batch in targets.split(run.batch_size)])
        posterior = vae.posterior(features)
        prior = vae.latent_prior()
        kl_metrics = split_kl(posterior, prior)
    static_seed = vae.likelihood.static_seed
    details = {
        "num_samples": run.samples_per_image(),
        "target_seed": run.target_seed if static_seed is None else static_seed,
        "kl": kl_method(posterior, prior),
        "num_images_of_split_kl": len(images),
        "unit": "nats per image",
    }
    return kl_metrics, details


def gan_details(split: str, scorer: Scorer) -> dict[str, Any]:
    """Return the feature extractor and the real-data baseline of the scores."""
    scores = scorer.real_statistics_by_split["test"].real_vs_real
    real_vs_real = {f"{split}/{name}": value for name, value in scores.items()}
    return {"feature_extractor": scorer.network.name, "real_vs_real": real_vs_real}


def build_trainer(config: DeviceConfig, seed: int, logger: TensorBoardLogger) -> pl.Trainer:
    """Return Lightning's Trainer for one pass over the test split of a data module."""
    silence_warnings()
    callbacks: list[pl.Callback] = [StopOnSignal(), PerStepSeeding(seed), TestProgressLog()]
    has_bar = is_bar_shown(config.enable_progress_bar)
    if has_bar:
        callbacks.append(RichProgressBar())
    trainer = pl.Trainer(
        **device_options(config),
        logger=logger,
        callbacks=callbacks,
        enable_progress_bar=has_bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    disable_signal_handlers(trainer)
    return trainer


def describe(run: EvaluateRun, checkpoint: Checkpoint, data: ImageDataModule) -> dict[str, Any]:
    """Return the description of the model, data and settings in evaluation.json."""
    config = to_plain(run)
    dataset = config["dataset"] or checkpoint.vae["dataset"]
    return {
        "stage": checkpoint.stage,
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.epoch,
        "dataset": dataset["name"],
        "split": run.split,
        "num_images": len(data.splits["test"]),
        "num_available": len(data.source.split(cast(SplitName, run.split)).images),
        "likelihood": checkpoint.vae["likelihood"]["name"],
        "versions": {name: version(name) for name in ("torch", "lightning", "zuko")},
        "evaluation": config,
        "model": checkpoint.vae,
    }
