"""Stage evaluate: compute the metrics of a trained VAE or GAN.

For a VAE: likelihood and latent-space metrics, comparable with published results. For a VAE and a
GAN: scores of generated images, together with the same scores of real images.
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
from vaegan.config import flatten, require, to_plain
from vaegan.data.batches import LoaderConfig
from vaegan.data.crops import ImageDataset
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ImageSource, Split, SplitName
from vaegan.gan.evaluation_module import GenerationModule
from vaegan.images import to_float
from vaegan.metrics.sample_scores import can_estimate_covariance, covariance_scores
from vaegan.reports.run_summary import print_metrics
from vaegan.reports.tables import replace_non_finite
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.out_of_memory import explain_out_of_memory
from vaegan.runtime.seeding import seeded
from vaegan.runtime.signals import catch_signals
from vaegan.stages.data_source import build_source
from vaegan.stages.run_folder import create_empty_folder
from vaegan.stages.sample_evaluation import SampleEvaluation, build_module, evaluate_samples
from vaegan.stages.tool_configs import QUICK_IMAGES, EvaluateRun
from vaegan.training.devices import (
    cluster_environment,
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
from vaegan.vae.evaluation import images_per_batch, split_kl
from vaegan.vae.evaluation_module import EvaluationModule
from vaegan.vae.model import VAE

NUM_SPLIT_KL_IMAGES = 1000  # images for the KL split; its cost is quadratic in their number


def evaluate(run: EvaluateRun, output_dir: Path, source: ImageSource | None = None) -> StageResult:
    """Evaluate a trained VAE or GAN: print its metrics and write evaluation.json.

    Args:
        run: Settings.
        output_dir: Folder in which the subfolder evaluate is created.
        source: Data set, if it is already in use; None: build it.

    Raises:
        ValueError: A requested option is unavailable. Raised before the evaluation starts.
    """
    set_up_devices(run.trainer)
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    run.check_stage(checkpoint.stage)
    data = load_data(run, checkpoint, source)
    generation = build_module(run, checkpoint, data) if run.num_draws else None
    tag = choose_sweep_metric(run, checkpoint.stage, generation)
    folder = broadcast(output_dir) / "evaluate"
    if is_rank_zero():
        create_empty_folder(folder)
    logger = TensorBoardLogger(folder.parent, name=folder.name, version="", default_hp_metric=False)
    trainer = build_trainer(run.trainer, run.seed, logger)
    scores: dict[str, float] = {}
    details: dict[str, Any] = {}
    with catch_signals(), explain_out_of_memory(memory_advice(run)):
        if checkpoint.stage == "vae":
            scores, details = evaluate_vae(run, checkpoint.build_vae(), data, trainer)
        if generation is not None:
            samples = evaluate_samples(run, generation, trainer, folder)
            scores |= samples.scores
            details |= describe_samples(run.split, samples)
    metrics = with_split(run.split, scores)
    if trainer.is_global_zero:
        record = describe(run, checkpoint, data) | details | {"figures": metrics}
        write_json(folder / "evaluation.json", replace_non_finite(record))
        hparams = flatten(checkpoint.vae) | flatten(to_plain(run), "evaluate.")
        logger.log_hyperparams(hparams, metrics=metrics)
        logger.finalize("success")
        print_metrics(metrics, record, folder)
    return StageResult(folder, checkpoint.path, metrics, tag=tag)


def memory_advice(run: EvaluateRun) -> str:
    """Return the settings to lower if there is not enough memory."""
    smaller = max(1, run.batch_size // 2)
    return (
        f"batch_size={smaller} (now {run.batch_size}), for a VAE chunk_size={smaller} (now "
        f"{run.chunk_size}), or num_images below the number of images"
    )


def choose_sweep_metric(run: EvaluateRun, stage: str, generation: GenerationModule | None) -> str:
    """Return the tag that is returned to a sweep.

    Raises:
        ValueError: `sweep_metric` needs more images than the split has.
    """
    default = run.sweep_tags(stage)[0]
    if stage == "gan" and generation is not None:
        scorer = generation.scorer
        default = f"{run.split}/{scorer.monitor}"
        num_images, num_features = len(scorer.data.splits["test"]), scorer.network.num_features
        is_scored = can_estimate_covariance(num_images, num_features)
        needs_covariance = run.sweep_metric.partition("/")[2] in covariance_scores()
        expected = f"{default} with {num_images} images and {num_features} features"
        require(is_scored or not needs_covariance, "sweep_metric", expected, run.sweep_metric)
    return run.sweep_metric or default


def load_data(
    run: EvaluateRun, checkpoint: Checkpoint, source: ImageSource | None
) -> ImageDataModule:
    """Return a data module whose test split contains the images to evaluate on.

    Raises:
        ValueError: The data set does not fit the checkpoint, or has too few images.
    """
    source = source or build_source(run.dataset, checkpoint, f"ckpt={run.ckpt}")
    batch_size = run.batch_size
    if checkpoint.stage == "vae":
        batch_size = images_per_batch(batch_size, run.samples_per_image())
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


def evaluate_vae(
    run: EvaluateRun, vae: VAE, data: ImageDataModule, trainer: pl.Trainer
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the likelihood and latent-space metrics of a VAE, and details of the computation."""
    num_samples = run.samples_per_image()
    module = EvaluationModule(vae, num_samples, run.chunk_size, run.target_seed)
    trainer.test(module, data, verbose=False)
    kl_metrics, details = vae_metrics(run, module.vae.cpu(), data)
    return module.metrics | kl_metrics, details


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


def describe_samples(split: str, samples: SampleEvaluation) -> dict[str, Any]:
    """Return the entries of evaluation.json about the scores of generated images, by tag."""
    return {
        "feature_extractor": samples.feature_extractor,
        "standard_errors": with_split(split, samples.standard_errors),
        "real_vs_real": with_split(split, samples.real_vs_real),
        "memorization": samples.memorization,
    }


def with_split(split: str, scores: dict[str, float]) -> dict[str, float]:
    """Return the scores by tag, such as test/recall, instead of by name."""
    return {f"{split}/{name}": value for name, value in scores.items()}


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
        plugins=[cluster_environment()],
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
