"""Stage evaluate: figures of a trained model that can be compared with papers.

Of a VAE its likelihood and latent space; of a GAN how far its images are from real ones, beside what real images score.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
from vaegan.data.dataset import Split
from vaegan.gan.evaluation_module import GenerationModule
from vaegan.images import to_float
from vaegan.metrics.feature_extractors import FeatureExtractor, build_feature_extractor
from vaegan.metrics.scorer import Scorer
from vaegan.reports.run_summary import print_figures
from vaegan.runtime.collectives import broadcast, is_rank_zero
from vaegan.runtime.seeding import seeded
from vaegan.runtime.signals import catch_signals
from vaegan.stages.data_source import build_source
from vaegan.stages.run_folder import new_folder
from vaegan.stages.tool_configs import EvaluateRun
from vaegan.training.devices import check_devices, device_options, keep_signals, quiet
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.stage_result import StageResult
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.vae.bounds import kl_method
from vaegan.vae.evaluation import split_kl
from vaegan.vae.evaluation_module import EvaluationModule
from vaegan.vae.model import VAE

NUM_SPLIT = 1000  # images whose KL is split at their aggregate posterior: its cost is quadratic


def evaluate(run: EvaluateRun, output_dir: Path) -> StageResult:
    """Score a VAE or a GAN, write evaluation.json, and print a table.

    Raises:
        ValueError: Something that the run asks for cannot be had; before anything is scored.
    """
    check_devices(run.trainer)
    checkpoint = load_checkpoint(find_checkpoint(run.ckpt, "ckpt", ["vae", "gan"]))
    run.choose_sweep_metric(checkpoint.stage)
    source = build_source(run.dataset, checkpoint, f"ckpt={run.ckpt}")
    data = ImageDataModule(
        source, LoaderConfig(batch_size=1, eval_batch_size=run.batch_size), run.seed
    )
    split = first_images(source.split(run.split), run.num_images)  # type: ignore[arg-type]
    size = list(source.image_shape[1:])
    num_devices = run.trainer.devices * run.trainer.num_nodes
    require(
        num_devices <= len(split.images),
        "trainer.devices",
        f"at most the {len(split.images)} images",
        num_devices,
    )
    data.splits["test"] = ImageDataset(split, size)  # what Lightning's test loop goes through
    if run.split == "train":  # then real images that are not the same ones give the floor
        data.splits["train"] = ImageDataset(source.split("test"), size)
    build: Any
    report: Any
    build, report = {"vae": (vae_module, vae_report), "gan": (gan_module, gan_report)}[
        checkpoint.stage
    ]
    module = build(run, checkpoint, data)
    output_dir = broadcast(output_dir)
    folder = broadcast(
        new_folder(output_dir / "evaluate") if is_rank_zero() else output_dir / "evaluate"
    )
    tensorboard = TensorBoardLogger(
        output_dir, name=folder.name, version="", default_hp_metric=False
    )
    trainer = evaluator(run, tensorboard)
    with catch_signals():
        trainer.test(module, data, verbose=False)
    evaluated = report(run, module, data)
    found = {f"{run.split}/{name}": value for name, value in evaluated.pop("figures").items()}
    if trainer.is_global_zero:
        record = describe(run, checkpoint, len(split.images)) | evaluated | {"figures": found}
        (folder / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n")
        tensorboard.log_hyperparams(
            flatten(checkpoint.vae) | flatten(to_plain(run), "evaluate."), metrics=found
        )
        tensorboard.finalize("success")
        print_figures(found, record, folder)
    return StageResult(folder, checkpoint.path, found, tag=run.sweep_metric)


def vae_module(run: EvaluateRun, checkpoint: Checkpoint, data: ImageDataModule) -> EvaluationModule:
    """What scores a VAE."""
    return EvaluationModule(
        checkpoint.build_vae(), run.num_samples, run.chunk_size, run.target_seed
    )


def vae_report(run: EvaluateRun, module: EvaluationModule, data: ImageDataModule) -> dict[str, Any]:
    """Likelihood and latent space, and how they were computed."""
    vae = module.vae.cpu()
    more, kl_kind = latent_figures(vae, data.splits["test"].images[:NUM_SPLIT], run)
    static_seed = vae.likelihood.static_seed
    return {
        "num_samples": run.num_samples,
        "target_seed": run.target_seed if static_seed is None else static_seed,
        "kl": kl_kind,
        "num_images_of_split_kl": min(len(data.splits["test"]), NUM_SPLIT),
        "unit": "nats per image",
        "figures": module.figures | more,
    }


def gan_module(run: EvaluateRun, checkpoint: Checkpoint, data: ImageDataModule) -> GenerationModule:
    """What scores a GAN."""
    features = run.features
    if features is None and checkpoint.run["features"] is not None:
        features = from_plain(FeatureExtractor.Config, checkpoint.run["features"], "features")
    network = build_feature_extractor(features, checkpoint.build_vae(), data.source.CLASSIFIER)
    return GenerationModule(
        checkpoint.build_generator(), checkpoint.build_latents(), Scorer(network, data, ("test",))
    )


def gan_report(run: EvaluateRun, module: GenerationModule, data: ImageDataModule) -> dict[str, Any]:
    """Scores of as many generated images as there are real ones, and what as many real training images score."""
    scorer = module.scorer
    floor = {
        f"{run.split}/{name}": value
        for name, value in scorer.real_statistics_by_split["test"].floor.items()
    }
    return {"features": scorer.network.name, "floor": floor, "figures": scorer.figures}


def first_images(split: Split, num: int | None) -> Split:
    """The first images of a split, or all."""
    there = len(split.images)
    require(
        num is None or num <= there,
        "num_images",
        f"at most the {there} images of the split, or null",
        num,
    )
    return split if num is None else Split(split.images[:num], split.labels[:num])


def evaluator(run: EvaluateRun, logger: TensorBoardLogger) -> pl.Trainer:
    """Lightning's Trainer for one pass over a split."""
    quiet()
    bars = [RichProgressBar()] if run.trainer.enable_progress_bar else []
    trainer = pl.Trainer(
        **device_options(run.trainer),
        logger=logger,
        callbacks=[StopOnSignal(), PerStepSeeding(run.seed), *bars],
        enable_progress_bar=run.trainer.enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    keep_signals(trainer)
    return trainer


@torch.no_grad()
def latent_figures(
    vae: VAE, images: torch.Tensor, run: EvaluateRun
) -> tuple[dict[str, float], str]:
    """The KL split at the aggregate posterior of the images, and how the KL is computed."""
    with seeded(run.seed, "split_kl"):
        targets = vae.likelihood.target(to_float(images), run.target_seed)
        features = torch.cat([vae.encoder(part) for part in targets.split(run.batch_size)])
        posterior, prior = vae.posterior(features), vae.latent_prior()
        return split_kl(posterior, prior), kl_method(posterior, prior)


def describe(run: EvaluateRun, checkpoint: Checkpoint, num_images: int) -> dict[str, Any]:
    """What was evaluated."""
    return {
        "stage": checkpoint.stage,
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.epoch,
        "dataset": (to_plain(run)["dataset"] or checkpoint.vae["dataset"])["name"],
        "split": run.split,
        "num_images": num_images,
        "likelihood": checkpoint.vae["likelihood"]["name"],
        "versions": {name: version(name) for name in ("torch", "lightning", "zuko")},
        "evaluation": to_plain(run),
        "model": checkpoint.vae,
    }
