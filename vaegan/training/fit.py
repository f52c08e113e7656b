"""Train a LightningModule: Trainer, loggers, callbacks, best checkpoint and test metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from vaegan.config import flatten
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.images.scanning import SkippedFile
from vaegan.data.loader_processes import explain_loader_failures
from vaegan.runtime.atomic_files import atomic_write, write_json
from vaegan.runtime.collectives import all_gather, is_rank_zero
from vaegan.runtime.out_of_memory import explain_out_of_memory
from vaegan.runtime.safe_load import load_archive
from vaegan.runtime.signals import deferred_signals
from vaegan.training.devices import (
    cluster_environment,
    device_options,
    disable_signal_handlers,
    silence_warnings,
)
from vaegan.training.duration import Duration, ends_near_validation, log_duration
from vaegan.training.grad_scaler import accept_missing_gradients
from vaegan.training.image_grids import ImageGridLogger
from vaegan.training.loggers import EventsLogger, MetricsLogger
from vaegan.training.no_profiler import NoProfiler
from vaegan.training.non_finite_guard import NonFiniteGuard
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.progress_bar import LoggedMetricsBar, ProgressLog, is_bar_shown
from vaegan.training.resume_checkpoints import AtomicCheckpointIO, BestCheckpoint, ResumeCheckpoints
from vaegan.training.stage_result import StageResult
from vaegan.training.step_options import StepOptions
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.training.strategies import choose_strategy
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig

NUM_EXAMPLES = 32  # real images in the image grids

log = logging.getLogger(__name__)


class FitSettings(NamedTuple):
    """Training settings that both stages share."""

    seed: int
    trainer: TrainerConfig
    duration: Duration
    loader: LoaderConfig
    checkpoint: CheckpointConfig
    monitor: str  # tag of the metric that selects the best checkpoint
    mode: str  # min or max: direction of `monitor`
    hparams: Mapping[str, Any]  # plain config of the run, written to the logs


def fit(
    module: pl.LightningModule,
    data: ImageDataModule,
    folder: Path,
    settings: FitSettings,
    resume_from: Path | None,
    callbacks: Sequence[pl.Callback] = (),
) -> StageResult:
    """Train, keep the best and the last checkpoint, and evaluate the best one on the test split.

    Args:
        module: Module to train.
        data: Data set.
        folder: Folder of the stage; it already contains checkpoints if the stage is resumed.
        settings: Devices, duration, batches and checkpoints of training.
        resume_from: Checkpoint to resume from; None starts from step 0.
        callbacks: Additional callbacks.

    Returns:
        Metrics of the best checkpoint: `settings.monitor`, and every metric of the test split.

    Raises:
        ValueError: Out of memory, or a loss or a gradient is not finite (`NonFiniteStep`).
    """
    best = BestCheckpoint(folder / "checkpoints", settings.monitor, settings.mode)
    events = EventsLogger(folder)
    trainer = build_trainer(module, data, folder, settings, events, [*callbacks, best])
    with closing(events), explain_failures(module, settings.loader, resume_from):
        if resume_from is None:
            trainer.validate(module, data, verbose=False)  # curves and image grids at step 0
            events.log_config(settings.hparams)
        list_skipped_files(folder, data.skipped)
        with deferred_signals():
            trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
        checkpoint = folder / "checkpoints" / "best.ckpt"
        metrics = {settings.monitor: final_score(trainer, module, data, best)}
        metrics |= compute_test_metrics(trainer, module, data, checkpoint)
        list_skipped_files(folder, data.skipped)  # some are found only during training
        events.log_hyperparams(flatten(settings.hparams), metrics=metrics)
    return StageResult(folder, checkpoint, metrics, tag=settings.monitor)


def check_resumable(
    module: pl.LightningModule, data: ImageDataModule, settings: FitSettings, path: Path
) -> dict[str, Any]:
    """Load a checkpoint into the module, with the same checks as `fit`.

    Returns:
        Content of the checkpoint.

    Raises:
        ValueError: The checkpoint is damaged, or does not fit the module, the data set or the
            settings.
    """
    checkpoint = load_archive(path)
    data.check_fingerprint(checkpoint[ImageDataModule.__name__])
    BestCheckpoint(path.parent, settings.monitor, settings.mode).check_monitor(checkpoint)
    with explain_failures(module, settings.loader, path):
        module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"])
    return checkpoint


def build_trainer(
    module: pl.LightningModule,
    data: ImageDataModule,
    folder: Path,
    settings: FitSettings,
    events: EventsLogger,
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Return Lightning's Trainer with the standard callbacks, followed by the given ones."""
    silence_warnings()
    config = settings.trainer
    if is_rank_zero():
        log_duration(settings.duration, folder.name)
        if config.precision != "32-true":
            log.info("%s: trainer.precision=%s", folder.name, config.precision)
    trainer = pl.Trainer(
        **device_options(config) | {"strategy": choose_strategy(config, module)},
        **settings.duration.trainer_options(config),
        benchmark=config.benchmark,
        deterministic=config.deterministic,
        log_every_n_steps=min(config.log_every_n_steps, settings.duration.log_interval),
        enable_progress_bar=is_bar_shown(config.enable_progress_bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # metric states kept across validations must not be inference tensors
        logger=[MetricsLogger(folder), events],
        callbacks=[*standard_callbacks(data, folder, settings), *callbacks],
        plugins=[AtomicCheckpointIO(), cluster_environment()],
        profiler=NoProfiler(),
    )
    disable_signal_handlers(trainer)
    accept_missing_gradients(trainer)
    return trainer


def standard_callbacks(
    data: ImageDataModule, folder: Path, settings: FitSettings
) -> list[pl.Callback]:
    """Return the callbacks that every training uses."""
    guard = NonFiniteGuard(settings.trainer.skip_bad_steps)
    examples = data.example_images(NUM_EXAMPLES)
    batch_size = settings.loader.images_per_step
    callbacks = [
        # Must come first: it runs before any other callback acts on a batch.
        ResumeCheckpoints(folder, settings.checkpoint, batch_size, guard),
        guard,
        StopOnSignal(),
        PerStepSeeding(settings.seed),
        StepOptions(settings.trainer),
        ImageGridLogger(folder / "images", examples, settings.seed),
        LearningRateMonitor("step"),
        ProgressLog(folder.name),
    ]
    if is_bar_shown(settings.trainer.enable_progress_bar):
        callbacks.append(LoggedMetricsBar())
    return callbacks


@contextmanager
def explain_failures(
    module: pl.LightningModule, loader: LoaderConfig, resume_from: Path | None
) -> Iterator[None]:
    """Explain out-of-memory errors, failures of data loader processes, and misfitting weights.

    Raises:
        ValueError: One of these failures.
    """
    with explain_out_of_memory(memory_advice(module, loader)), explain_loader_failures():
        try:
            yield
        except RuntimeError as error:
            if resume_from is None or "loading state_dict" not in str(error):
                raise
            raise ValueError(
                f"the weights in {resume_from} do not fit the networks (if an earlier version "
                f"wrote them, start a new run): {error}"
            ) from error


def memory_advice(module: pl.LightningModule, loader: LoaderConfig) -> str:
    """Return the settings to change if there is not enough memory."""
    accumulation = ""
    if not module.automatic_optimization:
        accumulation = ", gradient_accumulation=2 (same batch, computed in two parts)"
    return (
        f"loader.batch_size={max(1, loader.images_per_step // 2)} (now {loader.images_per_step})"
        f"{accumulation}, loader.eval_batch_size below {loader.eval_batch_size}, "
        "loader.device_share=0 or, on a GPU, trainer.precision=bf16-mixed or "
        "trainer.cuda_graphs=false"
    )


def ends_with_validation(trainer: pl.Trainer) -> bool:
    """True if training ends at most a tenth of a validation interval after a validation."""
    is_counted_across_epochs = trainer.check_val_every_n_epoch is None
    num_batches = trainer.num_training_batches
    if is_counted_across_epochs:
        num_batches = trainer.fit_loop.total_batch_idx + 1
    assert trainer.val_check_batch is not None
    return ends_near_validation(int(num_batches), int(trainer.val_check_batch))


def final_score(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, best: BestCheckpoint
) -> float:
    """Return the score of the best checkpoint, after a validation of the last weights."""
    if ends_with_validation(trainer):
        return best.saved_score()
    return score_last_weights(trainer, module, data, best)


def compute_test_metrics(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, checkpoint: Path
) -> dict[str, float]:
    """Return the metrics of a checkpoint on the test split, by tag."""
    trainer.test(module, data, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
    metrics = trainer.callback_metrics
    return {tag: float(value) for tag, value in metrics.items() if tag.startswith("test/")}


def score_last_weights(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, best: BestCheckpoint
) -> float:
    """Validate the final weights, and save them as best.ckpt if they score best.

    Returns:
        Score of the best checkpoint.
    """
    trainer.validate(module, data, verbose=False)
    score = trainer.callback_metrics[str(best.monitor)]
    is_better = torch.lt if best.mode == "min" else torch.gt
    best_score = best.best_model_score
    if best_score is None or is_better(score, best_score.to(score.device)):
        path = Path(str(best.dirpath)) / "best.ckpt"
        best.best_model_score = score
        best.best_model_path = str(path)
        if trainer.is_global_zero:
            with atomic_write(path) as file:
                file.write(path.with_name("last.ckpt").read_bytes())
        trainer.strategy.barrier()
    assert best.best_model_score is not None
    return float(best.best_model_score)


def list_skipped_files(folder: Path, skipped: Sequence[SkippedFile]) -> None:
    """Write skipped_files.json if any rank skipped files of the data set."""
    reasons = {file.path: file.reason for files in all_gather(skipped) for file in files}
    if reasons and is_rank_zero():
        write_json(folder / "skipped_files.json", reasons)
