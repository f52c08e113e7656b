"""Training of a LightningModule: Trainer, loggers, callbacks, best checkpoint and test metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar

from vaegan.config import flatten, require
from vaegan.data.batches import LoaderConfig
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.images.scanning import SkippedFile
from vaegan.runtime.atomic_files import atomic_write, write_json
from vaegan.runtime.collectives import is_rank_zero
from vaegan.training.devices import device_options, disable_signal_handlers, silence_warnings
from vaegan.training.image_grids import ImageGridLogger
from vaegan.training.loggers import EventsLogger, MetricsLogger
from vaegan.training.non_finite_guard import NonFiniteGuard
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.resume_checkpoints import AtomicCheckpointIO, BestCheckpoint, ResumeCheckpoints
from vaegan.training.stage_result import StageResult
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.training.trainer_config import CheckpointConfig, TrainerConfig

NUM_EXAMPLES = 32  # real images in the image grids


class FitSettings(NamedTuple):
    """Settings of a training that both stages have."""

    seed: int
    trainer: TrainerConfig
    loader: LoaderConfig
    checkpoint: CheckpointConfig
    monitor: str  # tag of the metric that chooses the best checkpoint
    mode: str  # min or max, of that metric
    hparams: Mapping[str, Any]  # plain config of the run, for the logs
    score_every_n_images: int | None = None  # from one validation to the next; None: of the trainer


def check_batches(config: TrainerConfig, data: ImageDataModule) -> None:
    """Check that there is a batch from one validation to the next.

    Raises:
        ValueError: There is none.
    """
    num_batches = data.num_train_batches * config.limit_train_batches * config.val_check_interval
    expected = (
        f"larger: with {data.num_train_batches} batches an epoch, no batch lies between two "
        "validations"
    )
    shares = (config.limit_train_batches, config.val_check_interval)
    key = "trainer.limit_train_batches * trainer.val_check_interval"
    require(num_batches >= 1, key, expected, shares)


def fit(
    module: pl.LightningModule,
    data: ImageDataModule,
    folder: Path,
    settings: FitSettings,
    resume_from: Path | None,
    callbacks: Sequence[pl.Callback] = (),
) -> StageResult:
    """Train, keep the best and the last checkpoint, and score the best one on the test split.

    Args:
        module: The module to train.
        data: The data set.
        folder: Folder of the stage, with checkpoints if it resumes.
        settings: Where, how long and on what batches to train.
        resume_from: Checkpoint to resume from, or None.
        callbacks: Additional callbacks.
    """
    silence_warnings()
    best = BestCheckpoint(folder / "checkpoints", settings.monitor, settings.mode)
    events = EventsLogger(folder)
    trainer = build_trainer(module, data, folder, settings, events, [*callbacks, best])
    with closing(events), explain_out_of_memory(module, settings.loader):
        if resume_from is None:
            trainer.validate(module, data, verbose=False)  # step 0 of curves and image grids
            events.log_config(settings.hparams)
        list_skipped_files(folder, data.skipped)
        trainer.fit(module, data, ckpt_path=resume_from, weights_only=True)
        if ends_with_validation(trainer):
            metrics = {settings.monitor: best.kept_score()}
        else:
            metrics = {settings.monitor: score_last_weights(trainer, module, data, best)}
        checkpoint = folder / "checkpoints" / "best.ckpt"
        trainer.test(module, data, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
        for tag, value in trainer.callback_metrics.items():
            if tag.startswith("test/"):
                metrics[tag] = float(value)
        list_skipped_files(folder, data.skipped)  # some are only found while training
        events.log_hyperparams(flatten(settings.hparams), metrics=metrics)
    return StageResult(folder, checkpoint, metrics)


def build_trainer(
    module: pl.LightningModule,
    data: ImageDataModule,
    folder: Path,
    settings: FitSettings,
    events: EventsLogger,
    callbacks: Sequence[pl.Callback],
) -> pl.Trainer:
    """Return Lightning's Trainer, with the callbacks of every training before those given."""
    config = settings.trainer
    options = device_options(config)
    is_distributed = config.devices * config.num_nodes > 1
    if config.strategy == "auto" and is_distributed and not module.automatic_optimization:
        # A step of one network leaves the other one without gradients.
        options["strategy"] = "ddp_find_unused_parameters_true"
    trainer = pl.Trainer(
        **options,
        max_epochs=config.max_epochs,
        limit_train_batches=config.limit_train_batches,
        **validation_options(settings),
        log_every_n_steps=min(config.log_every_n_steps, data.num_train_batches),
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # would lock what a metric keeps from one validation to the next
        logger=[MetricsLogger(folder), events],
        callbacks=[*standard_callbacks(data, folder, settings), *callbacks],
        plugins=[AtomicCheckpointIO()],
    )
    disable_signal_handlers(trainer)
    return trainer


def standard_callbacks(
    data: ImageDataModule, folder: Path, settings: FitSettings
) -> list[pl.Callback]:
    """Return the callbacks of every training."""
    guard = NonFiniteGuard(settings.trainer.skip_bad_steps)
    examples = data.example_images(NUM_EXAMPLES)
    batch_size = settings.loader.batch_size
    callbacks = [
        # First: it acts before anything is done for a batch.
        ResumeCheckpoints(folder, settings.checkpoint, batch_size, guard),
        guard,
        StopOnSignal(),
        PerStepSeeding(settings.seed),
        ImageGridLogger(folder / "images", examples, settings.seed),
        LearningRateMonitor("step"),
    ]
    if settings.trainer.enable_progress_bar:
        callbacks.append(RichProgressBar(refresh_rate=10))
    return callbacks


def validation_options(settings: FitSettings) -> dict[str, Any]:
    """Return the arguments of Lightning's Trainer that say how often to validate."""
    if settings.score_every_n_images is None:
        return {"val_check_interval": settings.trainer.val_check_interval}
    num_batches = settings.score_every_n_images // settings.loader.batch_size
    # Counted across epochs.
    return {"val_check_interval": num_batches, "check_val_every_n_epoch": None}


@contextmanager
def explain_out_of_memory(module: pl.LightningModule, loader: LoaderConfig) -> Iterator[None]:
    """Suggest remedies where memory does not suffice.

    Raises:
        ValueError: Out of memory, on the CPU or on a GPU.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_memory = re.search("out of memory|can't allocate memory", str(error))
        if isinstance(error, RuntimeError) and not is_memory:
            raise
        accumulation = ""
        if not module.automatic_optimization:
            accumulation = ", gradient_accumulation=2, which computes the same batch in two parts"
        raise ValueError(
            f"out of memory: {str(error).splitlines()[0]}\n"
            f"Try loader.batch_size={loader.batch_size // 2} (it is {loader.batch_size})"
            f"{accumulation}, loader.eval_batch_size below {loader.eval_batch_size}, "
            "loader.device_share=0 or, on a GPU, trainer.precision=bf16-mixed"
        ) from error


def ends_with_validation(trainer: pl.Trainer) -> bool:
    """Return True if the last validation was at most a tenth of an interval before the end."""
    is_counted_across_epochs = trainer.check_val_every_n_epoch is None
    num_batches = trainer.num_training_batches
    if is_counted_across_epochs:
        num_batches = trainer.fit_loop.total_batch_idx + 1
    assert trainer.val_check_batch is not None
    interval = int(trainer.val_check_batch)
    return int(num_batches) % interval <= interval // 10


def score_last_weights(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, best: BestCheckpoint
) -> float:
    """Validate the final weights, make them the best checkpoint if they are; return its score."""
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
    """Write skipped_files.json if there are files of the data set that are not used."""
    if skipped and is_rank_zero():
        reasons = {file.path: file.reason for file in skipped}
        write_json(folder / "skipped_files.json", reasons)
