"""Stage gan: train a GAN whose generator is initialized from a VAE's decoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from vaegan.checkpoints.checkpoint import Checkpoint, build_vae, header
from vaegan.config import require, to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ImageSource, SplitName
from vaegan.gan.module import GANModule
from vaegan.gan.noise_inputs import NUM_CHECKED_IMAGES, has_textures, takes_noise
from vaegan.gan.training_config import GANTraining, resolve_data_defaults
from vaegan.gan.warm_start import Transfer, saved_warm_start
from vaegan.metrics.feature_extractors import FeatureExtractor, build_feature_extractor
from vaegan.metrics.metric_table import MONITORS
from vaegan.metrics.sample_scores import can_estimate_covariance, covariance_scores
from vaegan.metrics.scorer import Scorer
from vaegan.networks.discriminators import Discriminator
from vaegan.networks.sizes import resolve_padding, resolve_width
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.atomic_files import write_json
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import path_override
from vaegan.stages.data_source import build_source, dataset_config
from vaegan.stages.gan_components import build_components
from vaegan.stages.initial_weights import choose_vae_weights, init_gan, starting_checkpoint
from vaegan.stages.new_duration import TrainingPlan, make_plan, open_stage
from vaegan.stages.run_folder import RunFolder, locked_run_folder
from vaegan.stages.stage_checkpoints import TrainingState, load_training_state
from vaegan.stages.training_runs import GANRun, InitialWeights, gan_sweep_tags
from vaegan.training.callback_table import build_callbacks
from vaegan.training.devices import set_up_devices
from vaegan.training.duration import resolve_duration
from vaegan.training.fit import FitSettings, fit
from vaegan.training.precision import resolve_precision
from vaegan.training.stage_result import StageResult
from vaegan.vae.model import VAE

log = logging.getLogger(__name__)
SCORED_SPLITS: tuple[SplitName, ...] = ("val", "test")
T = TypeVar("T", bound=GANTraining)


def train_gan(run: GANRun, output_dir: Path) -> StageResult:
    """Train a GAN whose generator is initialized from a VAE's decoder.

    Raises:
        ValueError: A requested option is unavailable. Raised before training starts.
    """
    device = set_up_devices(run.trainer)
    with locked_run_folder(run, "gan", output_dir) as run_folder:
        result = fit_gan(replace(run, resume=False), run_folder, device)
    model = path_override("ckpt", run_folder.path)
    commands = [f"python train.py stage={stage} {model}" for stage in ("sample", "evaluate")]
    print_summary("GAN", [result], run_folder.path, commands, run.plugins)
    return result


def fit_gan(
    run: GANRun, run_folder: RunFolder, device: torch.device, source: ImageSource | None = None
) -> StageResult:
    """Train a GAN in the subfolder gan of a run folder, or return the result if it exists.

    Args:
        run: Settings.
        run_folder: Run folder, locked by this process.
        device: Device of this process, which encodes the training images before training.
        source: Data set of the run, if it is already in use; None: build it.
    """
    if (finished := run_folder.finished_result("gan")) is not None:
        return finished
    checkpoint, option = starting_checkpoint(run)
    is_natural = dataset_config(run.dataset, checkpoint).component.IS_NATURAL
    saved = load_training_state(run_folder.path / "gan")
    run, checkpoint = choose_vae_weights(run, checkpoint, is_natural, saved and saved.run)
    source = source or build_source(run.dataset, checkpoint, option)
    data = ImageDataModule(source, run.loader, run.seed)
    vae = checkpoint.build_vae()
    run = resolve_components(run, checkpoint, data, saved)
    resolve = partial(resolve_plan, checkpoint=checkpoint, data=data, vae=vae, saved=saved)
    plan = make_plan(run_folder.path / "gan", saved, run, resolve)
    run = plan.run
    module, transfers = build_module(run, checkpoint, vae, data, device, is_new=saved is None)
    scorer = module.scorer
    settings = fit_settings(plan, f"val/{scorer.monitor}")
    folder, resume_from = open_stage(run_folder, "gan", plan, module, data, settings)
    result = fit(module, data, folder, settings, resume_from, build_callbacks(run.callbacks))
    for split in SCORED_SPLITS:
        scores = scorer.real_statistics(split, module.device).real_vs_real
        result.real_vs_real |= {f"{split}/{name}": value for name, value in scores.items()}
    if is_rank_zero():
        vae_flops = checkpoint.training_flops() if uses_vae(run, vae, transfers) else 0.0
        record = describe_run(run, checkpoint, scorer, transfers)
        record |= {"metrics": result.metrics, "stage1_compute": vae_flops / 1e15}
        write_json(folder / "run.json", record)
    run_folder.finish_stage(result)
    return result


def resolve_components(
    run: GANRun, checkpoint: Checkpoint, data: ImageDataModule, saved: TrainingState | None
) -> GANRun:
    """Return the run with the data-dependent defaults of its components filled in."""
    encoder, earlier = checkpoint.vae["encoder"], saved and saved.run["discriminator"]
    noise_inputs = run.noise_inputs
    if noise_inputs is None and (saved is not None or run.init):  # earlier versions had none
        noise_inputs = (saved or checkpoint).run.get("noise_inputs", False)
    return replace(
        run,
        noise_inputs=noise_inputs,
        augmentation=run.resolved_augmentation(data.source.IS_NATURAL),
        discriminator=resolve_discriminator(run.discriminator, encoder, data, earlier),
    )


def resolve_discriminator(
    config: Discriminator.Config,
    encoder: Mapping[str, Any],
    data: ImageDataModule,
    earlier: Mapping[str, Any] | None = None,
) -> Discriminator.Config:
    """Return the config with its defaults filled in.

    Args:
        config: Settings.
        encoder: Plain config of the VAE's encoder.
        data: Data set.
        earlier: Plain config of the discriminator in the training so far, if any.
    """
    num_images = len(data.splits["train"])
    config = resolve_width(config, data.source.image_shape, num_images, encoder)
    return resolve_padding(config, model=encoder if earlier is None else earlier)


def build_module(
    run: GANRun,
    checkpoint: Checkpoint,
    vae: VAE,
    data: ImageDataModule,
    device: torch.device,
    is_new: bool,
) -> tuple[GANModule, list[Transfer]]:
    """Build the module of a GAN with its initial weights, and the summaries of copied layers.

    If the GAN is not new, the settings of an earlier model in `run.init` are not compared.

    Raises:
        ValueError: A network, the feature extractor or `sweep_metric` does not fit the data.
    """
    build_fresh = partial(build_vae, checkpoint.vae, checkpoint.image_shape)
    components, transfers = build_components(run, run, vae, build_fresh, data, run.seed, device)
    scorer = build_scorer(run.feature_extractor, vae, data)
    check_sweep_metric(run.sweep_metric, scorer)
    scorer.log_small_splits()
    shape, flops = checkpoint.image_shape, checkpoint.vae_flops
    plain, names = to_plain(run), data.source.class_names
    checkpoint_header = header("gan", shape, plain, checkpoint.vae, flops, names)
    module = GANModule(components, scorer, run, checkpoint_header)
    if run.init:
        transfers = init_gan(module, checkpoint, run.init_mismatch if is_new else "fresh")
    for transfer in transfers:
        log.info("%s", transfer)
    log.info("generator: noise_inputs=%s", str(run.noise_inputs).lower())
    return module, transfers


def fit_settings(plan: TrainingPlan[GANRun], monitor: str) -> FitSettings:
    """Return the settings for `fit`; `monitor` is the tag that selects the best checkpoint."""
    run = plan.run
    return FitSettings(
        seed=run.seed,
        trainer=run.trainer,
        duration=plan.duration,
        loader=run.loader,
        checkpoint=run.checkpoint,
        monitor=monitor,
        mode="min",
        hparams=to_plain(run),
    )


def describe_run(
    run: GANRun, checkpoint: Checkpoint, scorer: Scorer, transfers: list[Transfer]
) -> dict[str, Any]:
    """Return the content of run.json that describes the training and the scoring of a GAN."""
    return {
        "label": run.label,
        "seed": run.seed,
        "dataset": type(scorer.data.source).Config.name,
        "config": to_plain(run) | {"vae": checkpoint.vae},
        "feature_extractor": scorer.network.name,
        "monitor": scorer.monitor,
        "num_images": len(scorer.data.splits["val"]),
        "real_vs_real": scorer.real_statistics_by_split["val"].real_vs_real,
        "transfer": [transfer._asdict() for transfer in transfers],
    }


def resolve_plan(
    run: GANRun,
    checkpoint: Checkpoint,
    data: ImageDataModule,
    vae: VAE,
    saved: TrainingState | None,
) -> TrainingPlan[GANRun]:
    """Return the duration of a run, and the run with data-dependent defaults filled in."""
    trainer = resolve_precision(run.trainer, data.source.IS_NATURAL, saved and saved.run)
    earlier = (saved or checkpoint).run if saved is not None or run.init else None
    run = resolve_training(replace(run, trainer=trainer), data, vae, earlier)
    settings = run.duration_dependent_settings()
    if run.gradient_penalty.build(data.source.image_shape).depends_on_progress():
        name = run.gradient_penalty.name
        settings.append(f"gradient_penalty={name}, whose weight changes")
    return TrainingPlan(
        run, resolve_duration(run.trainer, data, run.score_every_n_images), settings
    )


def resolve_training(
    training: T, data: ImageDataModule, vae: VAE, earlier: Mapping[str, Any] | None = None
) -> T:
    """Return the training settings of a GAN with data-dependent defaults filled in.

    Args:
        training: Settings.
        data: Data set.
        vae: VAE, which may be untrained.
        earlier: Plain run of the GAN that is resumed or named by `init`, if any.

    Raises:
        ValueError: There are too few training images for the batches or the warm-up, or a setting
            has no effect.
    """
    source = data.source
    (latent_dim,) = vae.latent_prior().event_shape
    images_per_dim = len(data.splits["train"]) / latent_dim
    emphasis = training.emphasis.resolve_defaults(source.IS_NATURAL)
    warm_start = training.warm_start.resolve_defaults(
        source.IS_NATURAL,
        images_per_dim,
        is_emphasized=not emphasis.is_neutral,
        earlier=None if earlier is None else saved_warm_start(earlier),
    )
    duration = resolve_duration(training.trainer, data, training.score_every_n_images)
    noise_inputs = training.noise_inputs
    if noise_inputs is None:
        images = data.splits["train"].images[:NUM_CHECKED_IMAGES]
        is_suitable = source.IS_NATURAL and takes_noise(vae.decoder)
        noise_inputs = is_suitable and has_textures(images)
    return resolve_data_defaults(
        replace(training, warm_start=warm_start, emphasis=emphasis, noise_inputs=noise_inputs),
        source.image_shape,
        duration.num_images,
        source.IS_NATURAL,
        is_trained=isinstance(training, InitialWeights) and training.init != "",
    )


def build_scorer(config: FeatureExtractor.Config | None, vae: VAE, data: ImageDataModule) -> Scorer:
    """Build the scorer of a GAN for the val and test splits.

    Raises:
        ValueError: The feature extractor does not fit the data, or a split has fewer than 2 images.
    """
    extractor = build_feature_extractor(config, vae, data.source.CLASSIFIER)
    return Scorer(extractor, data, SCORED_SPLITS)


def check_sweep_metric(tag: str, scorer: Scorer) -> None:
    """Check that training a GAN computes the metric `sweep_metric`.

    Raises:
        ValueError: It is a val metric that does not select the best checkpoint, or it needs more
            images than the test split has.
    """
    num_images, num_features = len(scorer.data.splits["test"]), scorer.network.num_features
    missing = {f"val/{name}" for name in MONITORS if name != scorer.monitor}
    if not can_estimate_covariance(num_images, num_features):
        missing |= {f"test/{name}" for name in covariance_scores()}
    tags = [name for name in gan_sweep_tags() if name not in missing]
    expected = f"one of {', '.join(tags)} with these numbers of images and features"
    require(tag not in missing, "sweep_metric", expected, tag)


def uses_vae(run: GANRun, vae: VAE, transfers: list[Transfer]) -> bool:
    """True if the GAN uses trained weights of the VAE, so that the VAE's compute is included."""
    start = run.warm_start
    has_learned_prior = any(True for _ in vae.prior.parameters())
    has_copied_layers = any(transfer.copied for transfer in transfers)
    has_reconstructions = bool(start.reconstruction_weight or start.feature_weight)
    uses_latents = has_reconstructions or bool(start.aggregate_posterior)
    return has_copied_layers or has_learned_prior or uses_latents
