"""What both stages do around Lightning's Trainer: run folder, loggers, callbacks, final metrics, summary."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from vaegan.config import flatten, require, to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.images.scanning import SkippedFile
from vaegan.runtime.atomic_files import atomic_write, write_json
from vaegan.runtime.collectives import is_rank_zero
from vaegan.stages.run_folder import newest_checkpoint
from vaegan.stages.training_runs import GANRun, VAERun
from vaegan.training.devices import device_options, keep_signals, quiet
from vaegan.training.image_grids import ImageGridLogger
from vaegan.training.loggers import EventsLogger, MetricsLogger
from vaegan.training.non_finite_guard import NonFiniteGuard
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.resume_checkpoints import AtomicCheckpointIO, BestCheckpoint, ResumeCheckpoints
from vaegan.training.stage_result import StageResult
from vaegan.training.stop_on_signal import StopOnSignal
from vaegan.training.trainer_config import TrainerConfig

log = logging.getLogger(__name__)
NUM_EXAMPLES = 32  # real images in the image grids


def check_batches(config: TrainerConfig, data: ImageDataModule) -> None:
    """From one validation to the next there must be a batch.

    Raises:
        ValueError: There is none.
    """
    num_batches = data.num_train_batches * config.limit_train_batches * config.val_check_interval
    expected = f"larger: with {data.num_train_batches} batches an epoch, no batch lies between two validations"
    shares = (config.limit_train_batches, config.val_check_interval)
    require(
        num_batches >= 1,
        "trainer.limit_train_batches * trainer.val_check_interval",
        expected,
        shares,
    )


def fit(
    run: VAERun | GANRun,
    module: pl.LightningModule,
    data: ImageDataModule,
    folder: Path,
    monitor: str,
    mode: str,
    callbacks: list[pl.Callback],
) -> StageResult:
    """Train, keep the best and the last checkpoint, and score the best one on the test split.

    Args:
        run: The stage's config.
        module: What to train, on `data`.
        data: The data set.
        folder: The stage's folder, new or with checkpoints to go on from.
        monitor: Tag of the metric that chooses the best checkpoint; `mode` is "min" or "max".
        callbacks: Those of this stage alone.
    """
    quiet()
    begin, plain = newest_checkpoint(folder), to_plain(run)
    best, events = BestCheckpoint(folder / "checkpoints", monitor, mode), EventsLogger(folder)
    trainer = make_trainer(
        run, module, data, [MetricsLogger(folder), events], [*callbacks, best], folder
    )
    with closing(events), explain_out_of_memory(run):
        if begin is None:
            trainer.validate(module, data, verbose=False)  # step 0 of the curves and the image grids
            events.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(plain)}\n```")
        list_skipped(folder, data.skipped)
        trainer.fit(module, data, ckpt_path=begin, weights_only=True)
        is_scored = ends_with_a_validation(trainer)
        checkpoint = Path(str(best.dirpath)) / "best.ckpt"
        metrics = {
            monitor: best.kept_score() if is_scored else score_end(trainer, module, data, best)
        }
        trainer.test(module, data, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
        metrics |= {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("test/")
        }
        list_skipped(folder, data.skipped)  # some are only found while training
        events.log_hyperparams(flatten(plain), metrics=metrics)
    return StageResult(folder, checkpoint, metrics)


def make_trainer(
    run: VAERun | GANRun,
    module: pl.LightningModule,
    data: ImageDataModule,
    loggers: list[Logger],
    callbacks: list[pl.Callback],
    folder: Path,
) -> pl.Trainer:
    """Lightning's Trainer of a stage, with the callbacks that every training has before those given."""
    config, finite_steps = run.trainer, NonFiniteGuard(run.trainer.skip_bad_steps)
    every = [
        ResumeCheckpoints(
            folder, run.checkpoint, run.loader.batch_size, finite_steps
        ),  # the first one: see there
        finite_steps,
        StopOnSignal(),
        PerStepSeeding(run.seed),
        ImageGridLogger(folder / "images", data.example_images(NUM_EXAMPLES), run.seed),
        LearningRateMonitor("step"),
        *([RichProgressBar(refresh_rate=10)] if config.enable_progress_bar else []),
    ]
    options = device_options(config)
    if (
        config.strategy == "auto"
        and config.devices * config.num_nodes > 1
        and not module.automatic_optimization
    ):
        options["strategy"] = (
            "ddp_find_unused_parameters_true"  # each player's step leaves the other without gradients
        )
    trainer = pl.Trainer(
        **options,
        max_epochs=config.max_epochs,
        limit_train_batches=config.limit_train_batches,
        **validation_options(run),
        log_every_n_steps=min(config.log_every_n_steps, data.num_train_batches),
        enable_progress_bar=config.enable_progress_bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        inference_mode=False,  # what a metric keeps from one validation to the next would be locked otherwise
        logger=loggers,
        callbacks=[*every, *callbacks],
        plugins=[AtomicCheckpointIO()],
    )
    keep_signals(trainer)
    return trainer


@contextmanager
def explain_out_of_memory(run: VAERun | GANRun) -> Iterator[None]:
    """Says what to try where memory does not suffice.

    Raises:
        ValueError: It does not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search(
            "out of memory|can't allocate memory", str(error)
        ):
            raise
        smaller = f"loader.batch_size={run.loader.batch_size // 2} (it is {run.loader.batch_size})"
        parts = (
            ", gradient_accumulation=2, which computes the same batch in two parts"
            if run.STAGE == "gan"
            else ""
        )
        raise ValueError(
            f"out of memory: {str(error).splitlines()[0]}\nTry {smaller}{parts}, loader.eval_batch_size below "
            f"{run.loader.eval_batch_size}, loader.device_share=0 or, on a GPU, trainer.precision=bf16-mixed"
        ) from error


def validation_options(run: VAERun | GANRun) -> dict[str, Any]:
    """How often to validate, for Lightning's Trainer."""
    if isinstance(run, GANRun) and run.score_every_n_images is not None:
        num_batches = run.score_every_n_images // run.loader.batch_size
        return {
            "val_check_interval": num_batches,
            "check_val_every_n_epoch": None,
        }  # counted through the epochs
    return {"val_check_interval": run.trainer.val_check_interval}


def ends_with_a_validation(trainer: pl.Trainer) -> bool:
    """Whether Lightning validated after the last batch of a training, or at most a tenth of an interval before it."""
    counts_through = trainer.check_val_every_n_epoch is None
    num_batches = (
        trainer.fit_loop.total_batch_idx + 1 if counts_through else trainer.num_training_batches
    )
    assert trainer.val_check_batch is not None
    return int(num_batches) % int(trainer.val_check_batch) <= int(trainer.val_check_batch) // 10


def score_end(
    trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, best: BestCheckpoint
) -> float:
    """Validate what a training ended with, and make it the best checkpoint if it is; returns that one's score."""
    trainer.validate(module, data, verbose=False)
    score = trainer.callback_metrics[str(best.monitor)]
    is_better = torch.lt if best.mode == "min" else torch.gt
    if best.best_model_score is None or is_better(score, best.best_model_score.to(score.device)):
        path = Path(str(best.dirpath)) / "best.ckpt"
        best.best_model_score, best.best_model_path = score, str(path)
        if trainer.is_global_zero:
            with atomic_write(path) as file:
                file.write(path.with_name("last.ckpt").read_bytes())
        trainer.strategy.barrier()
    assert best.best_model_score is not None
    return float(best.best_model_score)


def list_skipped(folder: Path, skipped: Sequence[SkippedFile]) -> None:
    """Write down which files of the data set are not used, and why, if there are any."""
    if skipped and is_rank_zero():
        write_json(folder / "skipped_files.json", {file.path: file.reason for file in skipped})
