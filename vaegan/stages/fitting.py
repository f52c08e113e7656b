"""What both stages do around Lightning's Trainer: run folder, loggers, callbacks, final metrics, summary."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from vaegan.callbacks import Pictures, StatelessNoise
from vaegan.checkpoints import Checkpoint
from vaegan.config import flatten, from_plain, require, to_plain
from vaegan.data.datasets import ImageSource
from vaegan.data.module import ImageDataModule
from vaegan.data.scanning import Skipped
from vaegan.files import write_json, written_whole
from vaegan.logs import EventsLogger, MetricsLogger
from vaegan.processes import is_first
from vaegan.safety import BestCheckpoint, FiniteSteps, Interruptible, Recovery, WholeCheckpoints
from vaegan.stages.folders import newest_checkpoint
from vaegan.stages.runs import GANRun, StageResult, VAERun
from vaegan.training import DeviceConfig, TrainerConfig

log = logging.getLogger(__name__)
NUM_EXAMPLES = 32  # real images in the pictures


def new_folder(path: Path) -> Path:
    """Make the folder of a stage.

    Raises:
        ValueError: It holds a run already, or cannot be made.
    """
    if path.exists() and any(path.iterdir()):
        raise ValueError(f"{path} holds a run already, which is never overwritten; set hydra.run.dir to a new folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the run folder {path} ({error.strerror}); set hydra.run.dir") from error
    return path


def device_options(config: DeviceConfig) -> dict[str, Any]:
    """Where to train, for Lightning's Trainer."""
    names = ("accelerator", "devices", "num_nodes", "strategy", "precision")
    return {name: getattr(config, name) for name in names}


def connect(config: DeviceConfig) -> None:
    """Ask Lightning whether this machine has what the config wants, and let the processes of a run find each other.

    Raises:
        ValueError: It has not.
    """
    quiet()
    try:
        trainer = pl.Trainer(**device_options(config), logger=False, enable_checkpointing=False)
        if trainer.world_size > 1:
            trainer.strategy.setup_environment()
            if not is_first():
                logging.getLogger().setLevel(logging.ERROR)
    except (MisconfigurationException, ImportError, ValueError, RuntimeError) as error:
        raise ValueError(f"trainer: {device_options(config)} cannot be had on this machine: {error}") from error


def build_source(config: Any, checkpoint: Checkpoint, named: str) -> ImageSource:
    """The data set of a config, or the VAE's where that is None; `named` is how the user named the checkpoint.

    Raises:
        ValueError: Its images have another shape than the VAE's.
    """
    if config is None:
        config = from_plain(ImageSource.Config, checkpoint.vae["dataset"], "dataset")
    else:
        warn_of_other_splits(to_plain(config), checkpoint.vae["dataset"])
    source: ImageSource = config.build()
    if source.image_shape != checkpoint.image_shape:
        raise ValueError(
            f"{named} makes images of shape {checkpoint.image_shape} (channels, height, width), but "
            f"dataset={config.name} has {source.image_shape}; leave dataset out to use the VAE's, "
            f"{checkpoint.vae['dataset']['name']}, or train a VAE on this one"
        )
    return source


def warn_of_other_splits(given: dict[str, Any], trained: dict[str, Any]) -> None:
    """Where the VAE's own data set comes with other settings, its training images may be in the val or test split."""
    if given["name"] == trained["name"]:
        places = ("root", "cache", "num_threads")
        keys = [key for key, value in given.items() if key not in places and value != trained.get(key, value)]
        if keys:
            differ = ", ".join(f"{key}={given[key]} for {trained[key]}" for key in keys)
            log.warning("the data set differs from the one that the VAE was trained on (%s): splits may mix", differ)


def check_batches(config: TrainerConfig, data: ImageDataModule) -> None:
    """From one validation to the next there must be a batch.

    Raises:
        ValueError: There is none.
    """
    num_batches = data.num_train_batches * config.limit_train_batches * config.val_check_interval
    expected = f"larger: with {data.num_train_batches} batches an epoch, no batch lies between two validations"
    shares = (config.limit_train_batches, config.val_check_interval)
    require(num_batches >= 1, "trainer.limit_train_batches * trainer.val_check_interval", expected, shares)


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
    trainer = make_trainer(run, module, data, [MetricsLogger(folder), events], [*callbacks, best], folder)
    with closing(events), explaining_memory(run):
        if begin is None:
            trainer.validate(module, data, verbose=False)  # step 0 of the curves and the pictures
            events.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(plain)}\n```")
        list_skipped(folder, data.skipped)
        trainer.fit(module, data, ckpt_path=begin, weights_only=True)
        is_scored = ends_with_a_validation(trainer)
        checkpoint = Path(str(best.dirpath)) / "best.ckpt"
        metrics = {monitor: best.kept_score() if is_scored else score_end(trainer, module, data, best)}
        trainer.test(module, data, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
        metrics |= {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
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
    config, finite_steps = run.trainer, FiniteSteps(run.trainer.skip_bad_steps)
    every = [
        Recovery(folder, run.checkpoint, run.loader.batch_size, finite_steps),  # the first one: see there
        finite_steps,
        Interruptible(),
        StatelessNoise(run.seed),
        Pictures(folder / "pictures", data.example_images(NUM_EXAMPLES), run.seed),
        LearningRateMonitor("step"),
        *([RichProgressBar(refresh_rate=10)] if config.enable_progress_bar else []),
    ]
    options = device_options(config)
    if config.strategy == "auto" and config.devices * config.num_nodes > 1 and not module.automatic_optimization:
        options["strategy"] = "ddp_find_unused_parameters_true"  # each player's step leaves the other without gradients
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
        plugins=[WholeCheckpoints()],
    )
    keep_signals(trainer)
    return trainer


def keep_signals(trainer: pl.Trainer) -> None:
    """Leave signals to our handlers: Lightning's save in the middle of a batch, and wait for other processes there."""
    setattr(trainer._signal_connector, "register_signal_handlers", lambda: None)  # noqa: B010


@contextmanager
def explaining_memory(run: VAERun | GANRun) -> Iterator[None]:
    """Says what to try where memory does not suffice.

    Raises:
        ValueError: It does not.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not re.search("out of memory|can't allocate memory", str(error)):
            raise
        smaller = f"loader.batch_size={run.loader.batch_size // 2} (it is {run.loader.batch_size})"
        parts = ", gradient_accumulation=2, which computes the same batch in two parts" if run.STAGE == "gan" else ""
        raise ValueError(
            f"out of memory: {str(error).splitlines()[0]}\nTry {smaller}{parts}, loader.eval_batch_size below "
            f"{run.loader.eval_batch_size}, loader.device_share=0 or, on a GPU, trainer.precision=bf16-mixed"
        ) from error


def validation_options(run: VAERun | GANRun) -> dict[str, Any]:
    """How often to validate, for Lightning's Trainer."""
    if isinstance(run, GANRun) and run.score_every_n_images is not None:
        num_batches = run.score_every_n_images // run.loader.batch_size
        return {"val_check_interval": num_batches, "check_val_every_n_epoch": None}  # counted through the epochs
    return {"val_check_interval": run.trainer.val_check_interval}


def ends_with_a_validation(trainer: pl.Trainer) -> bool:
    """Whether Lightning validated after the last batch of a training, or at most a tenth of an interval before it."""
    counts_through = trainer.check_val_every_n_epoch is None
    num_batches = trainer.fit_loop.total_batch_idx + 1 if counts_through else trainer.num_training_batches
    assert trainer.val_check_batch is not None
    return int(num_batches) % int(trainer.val_check_batch) <= int(trainer.val_check_batch) // 10


def score_end(trainer: pl.Trainer, module: pl.LightningModule, data: ImageDataModule, best: BestCheckpoint) -> float:
    """Validate what a training ended with, and make it the best checkpoint if it is; returns that one's score."""
    trainer.validate(module, data, verbose=False)
    score = trainer.callback_metrics[str(best.monitor)]
    is_better = torch.lt if best.mode == "min" else torch.gt
    if best.best_model_score is None or is_better(score, best.best_model_score.to(score.device)):
        path = Path(str(best.dirpath)) / "best.ckpt"
        best.best_model_score, best.best_model_path = score, str(path)
        if trainer.is_global_zero:
            with written_whole(path) as file:
                file.write(path.with_name("last.ckpt").read_bytes())
        trainer.strategy.barrier()
    assert best.best_model_score is not None
    return float(best.best_model_score)


def quiet() -> None:
    """Silence Lightning's advice that does not hold here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric.utilities.distributed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*recommended to use `self.log.*sync_dist=True.*")  # scores are of all devices
    warnings.filterwarnings("ignore", ".*Grad strides do not match bucket view.*")  # of channels last; little is lost
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # batches are slices of memory
    warnings.filterwarnings("ignore", ".*in eval mode at the start of training.*")  # the GAN's VAE is, on purpose
    warnings.filterwarnings("ignore", ".*IterableDataset.*has `__len__` defined.*")  # litdata's is right
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # its order is f(seed, epoch)
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # a run that goes on
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning's own use of torch


def list_skipped(folder: Path, skipped: Sequence[Skipped]) -> None:
    """Write down which files of the data set are not used, and why, if there are any."""
    if skipped and is_first():
        write_json(folder / "skipped_files.json", {file.path: file.reason for file in skipped})
