"""Stage vae: train a VAE by maximizing the ELBO."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from vaegan.checkpoints.checkpoint import header
from vaegan.config import require, to_plain
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.dataset import ImageSource
from vaegan.images import to_float
from vaegan.networks.sizes import ConvSizes, resolve_padding, resolve_width
from vaegan.reports.run_summary import print_summary
from vaegan.runtime.collectives import is_rank_zero
from vaegan.runtime.paths import path_override
from vaegan.runtime.seeding import seeded
from vaegan.stages.initial_weights import earlier_vae, init_vae
from vaegan.stages.new_duration import TrainingPlan, make_plan, open_stage
from vaegan.stages.run_folder import RunFolder, locked_run_folder
from vaegan.stages.stage_checkpoints import TrainingState, load_training_state
from vaegan.stages.tool_configs import EvaluateRun
from vaegan.stages.training_runs import VAERun, fields_of
from vaegan.training.callback_table import build_callbacks
from vaegan.training.devices import set_up_devices
from vaegan.training.duration import resolve_duration
from vaegan.training.fit import FitSettings, fit
from vaegan.training.precision import resolve_precision
from vaegan.training.stage_result import StageResult
from vaegan.training.trainer_config import DeviceConfig
from vaegan.vae.bounds import elbo, kl_method
from vaegan.vae.model import NUM_CONSTANT_IMAGES, VAE, VAEConfig
from vaegan.vae.module import VAEModule
from vaegan.vae.training_config import resolve_data_defaults

log = logging.getLogger(__name__)
T = TypeVar("T", bound=VAEConfig)
NUM_OVERFITTING_IMAGES = 1000  # training images whose ELBO is compared with that of test images
MAX_OVERFITTING = 0.1  # nats per pixel value by which the training ELBO may be larger
MIN_KL = 0.1  # nats per image, below which the posterior has collapsed
NUM_NLL_IMAGES = 1000  # for sweep_metric=val/nll: enough to rank models within seconds
NUM_NLL_SAMPLES = 100  # importance samples per image for sweep_metric=val/nll


def train_vae(run: VAERun, output_dir: Path) -> StageResult:
    """Train a VAE.

    Raises:
        ValueError: A requested option is unavailable. Raised before training starts.
    """
    set_up_devices(run.trainer)
    with locked_run_folder(run, "vae", output_dir) as run_folder:
        source = run.dataset.build()
        result = fit_vae(replace(run, resume=False), run_folder, source)
        if run.sweep_metric == "val/nll":
            result.metrics["val/nll"] = validation_nll(run, run_folder.path, source)
    commands = [
        f"python train.py stage=sample {path_override('ckpt', run_folder.path)}",
        f"python train.py stage=evaluate {path_override('ckpt', run_folder.path)}",
        f"python train.py stage=gan {path_override('vae_ckpt', run_folder.path)}",
    ]
    print_summary("VAE", [result], run_folder.path, commands, run.plugins)
    return result


def fit_vae(run: VAERun, run_folder: RunFolder, source: ImageSource) -> StageResult:
    """Train a VAE in the subfolder vae of a run folder, or return the result if it exists.

    Args:
        run: Settings.
        run_folder: Run folder, locked by this process.
        source: Data set of the run.
    """
    if (finished := run_folder.finished_result("vae")) is not None:
        return finished
    saved = load_training_state(run_folder.path / "vae")
    run = resolve_data_defaults(run, source.IS_NATURAL, saved and saved.run)
    data = ImageDataModule(source, evaluation_batches(run), run.seed)
    resolve = partial(resolve_plan, data=data, saved=saved)
    plan = make_plan(run_folder.path / "vae", saved, run, resolve)
    run = plan.run
    vae = build_initial_vae(run if saved is None else replace(run, init=""), data)
    config = to_plain(run)
    names = source.class_names
    checkpoint_header = header("vae", source.image_shape, config, config, class_names=names)
    module = VAEModule(vae, run.objective.build(), run, checkpoint_header)
    monitor = f"val/{run.objective.bound_name}"
    settings = fit_settings(plan, monitor)
    callbacks = build_callbacks(run.callbacks)
    if (patience := run.early_stopping_patience) is not None:
        callbacks.append(EarlyStopping(monitor, mode="max", patience=patience))
    folder, resume_from = open_stage(run_folder, "vae", plan, module, data, settings)
    result = fit(module, data, folder, settings, resume_from, callbacks)
    report_overfitting(module, data, result.metrics["test/elbo"], run.seed)
    report_collapse(result.metrics["test/kl"])
    run_folder.finish_stage(result)
    return result


def fit_settings(plan: TrainingPlan[VAERun], monitor: str) -> FitSettings:
    """Return the settings for `fit`; `monitor` is the tag that selects the best checkpoint."""
    run = plan.run
    return FitSettings(
        seed=run.seed,
        trainer=run.trainer,
        duration=plan.duration,
        loader=run.loader,
        checkpoint=run.checkpoint,
        monitor=monitor,
        mode="max",
        hparams=to_plain(run),
    )


def resolve_plan(
    run: VAERun, data: ImageDataModule, saved: TrainingState | None
) -> TrainingPlan[VAERun]:
    """Return the duration of a run, and the run with data-dependent defaults filled in."""
    duration = resolve_duration(run.trainer, data)
    trainer = resolve_precision(run.trainer, data.source.IS_NATURAL, saved and saved.run)
    run = replace(run.resolve_schedule(duration.epochs), trainer=trainer)
    earlier = saved.run if saved is not None else earlier_vae(run)
    run = resolve_networks(run, data, earlier)
    return TrainingPlan(run, duration, run.duration_dependent_settings())


def resolve_networks(run: T, data: ImageDataModule, earlier: Mapping[str, Any] | None = None) -> T:
    """Return the run with the data-dependent defaults of encoder and decoder filled in.

    Args:
        run: Settings.
        data: Data set.
        earlier: Plain config of the VAE whose training continues, if any.
    """
    image_shape, num_images = data.source.image_shape, len(data.splits["train"])
    encoder = resolve_width(run.encoder, image_shape, num_images)
    decoder = resolve_width(run.decoder, image_shape, num_images)
    return replace(
        run,
        encoder=resolve_padding(encoder, model=earlier and earlier["encoder"]),
        decoder=resolve_padding(decoder, data.source.IS_NATURAL, earlier and earlier["decoder"]),
    )


def log_networks(run: VAEConfig) -> None:
    """Log the settings of encoder and decoder whose defaults depend on the data."""
    parts = {"encoder": run.encoder, "decoder": run.decoder}
    settings = [f"{key}.width={p.width}" for key, p in parts.items() if isinstance(p, ConvSizes)]
    if isinstance(run.decoder, ConvSizes):
        settings.append(f"decoder.padding={run.decoder.padding}")
    if settings and is_rank_zero():
        log.info("networks: %s", " ".join(settings))


def evaluation_batches(run: VAERun) -> LoaderConfig:
    """Return the loader config with which an evaluation batch needs no more memory than a step."""
    loader = run.loader
    if run.objective.build().num_samples == 1:
        return loader
    return replace(loader, eval_batch_size=min(loader.images_per_step, loader.eval_batch_size))


def build_initial_vae(run: VAERun, data: ImageDataModule) -> VAE:
    """Build the VAE of a run with its initial weights.

    Raises:
        ValueError: The prior needs more images than the training set has, or `init` does not fit.
    """
    with seeded(run.seed, "init"):
        vae = VAE(data.source.image_shape, run)
        images = initial_images(vae, data)
        vae.initialize(images)
        for transfer in init_vae(vae, run):
            log.info("%s", transfer)
        log.info("KL(q(z|x) || p(z)): %s", kl_method(vae.encode(images[:2]), vae.latent_prior()))
        log_networks(run)
    return vae


@torch.no_grad()
def report_overfitting(
    module: VAEModule, data: ImageDataModule, test_elbo: float, seed: int
) -> None:
    """Log the ELBO on training images next to the one on test images, in nats per image."""
    vae = module.vae.eval()
    images = to_float(data.splits["train"].images[:NUM_OVERFITTING_IMAGES]).to(module.device)
    with seeded(seed, "overfitting"):
        elbos = []
        for batch in images.split(data.loader.eval_batch_size):
            target = vae.likelihood.target(batch)
            elbos.append(elbo(vae, target, vae.encode(target), vae.latent_prior()).value)
    train_elbo = float(torch.cat(elbos).mean())
    gap = (train_elbo - test_elbo) / images[0].numel()
    is_large = gap > MAX_OVERFITTING
    advice = "; to reduce overfitting, add images or lower decoder.width or latent_dim"
    if is_rank_zero():
        log.log(
            logging.WARNING if is_large else logging.INFO,
            "vae: the ELBO is %.1f on training images and %.1f on test images%s",
            train_elbo,
            test_elbo,
            advice if is_large else "",
        )


def report_collapse(kl: float) -> None:
    """Log a warning if the latents hold almost no information; `kl` is in nats per image."""
    if kl < MIN_KL and is_rank_zero():
        log.warning(
            "vae: posterior collapse: the KL is %.2g nats, so images hardly depend on the latents; "
            "train for longer, lower objective.beta, set objective.free_bits=0.1 (only with "
            "objective=elbo) or try another likelihood (docs/troubleshooting.md)",
            kl,
        )


def initial_images(vae: VAE, data: ImageDataModule) -> Tensor:
    """Return random training images for data-dependent initialization, in [0, 1], (N, C, H, W).

    Raises:
        ValueError: The prior needs more images than the training set has.
    """
    train = data.splits["train"]
    num_available = len(train)
    num_pseudo_inputs = vae.prior.num_initial_images
    expected = f"at most {num_available}, the number of training images"
    is_enough = num_pseudo_inputs <= num_available
    require(is_enough, "prior.num_pseudo_inputs", expected, num_pseudo_inputs)
    chosen = torch.randperm(num_available)[: max(num_pseudo_inputs, NUM_CONSTANT_IMAGES)]
    return to_float(train.images[chosen])


def validation_nll(run: VAERun, folder: Path, source: ImageSource) -> float:
    """Return the importance-weighted NLL of the best checkpoint on the val split, for sweeps.

    The unit is nats per image, averaged over the first `NUM_NLL_IMAGES` images of the split.
    """
    from vaegan.stages.evaluate import evaluate

    source.prepare_once()  # not yet done if the run had finished before
    if is_rank_zero():
        shutil.rmtree(folder / "evaluate", ignore_errors=True)  # left by a run stopped here
    evaluation = EvaluateRun(
        ckpt=str(folder),
        split="val",
        num_images=min(NUM_NLL_IMAGES, len(source.split("val").images)),
        num_samples=NUM_NLL_SAMPLES,
        num_draws=0,
        seed=run.seed,
        trainer=DeviceConfig(**fields_of(run.trainer, DeviceConfig)),
    )
    return evaluate(evaluation, folder, source).metrics["val/nll"]
