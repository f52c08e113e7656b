"""What a command line composes to: one typed run for each stage. No Lightning is imported before a run executes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

import vaegan.data.image_folder  # noqa: F401  registers dataset=image_folder
import vaegan.data.shapes  # noqa: F401  registers dataset=shapes
import vaegan.data.stacked  # noqa: F401  registers dataset=stacked_mnist
import vaegan.data.streaming  # noqa: F401  registers dataset=streaming
from vaegan.config import require
from vaegan.data.datasets import ImageSource
from vaegan.likelihoods import Likelihood
from vaegan.metrics.features import FeatureNetwork
from vaegan.models import VAEConfig
from vaegan.objectives import Objective
from vaegan.training import DeviceConfig, GANConfig, GANTraining, TrainerConfig, VAETraining

NUM_NLL_IMAGES, NUM_NLL_SAMPLES = 1000, 100  # of sweep_metric=val/nll: enough to rank models, in seconds


@dataclass
class StageResult:
    """What a stage leaves behind."""

    folder: Path
    checkpoint: Path  # the best one
    metrics: dict[str, float]  # by tag, such as test/elbo
    floor: dict[str, float] = field(default_factory=dict)  # by tag: what real images score in the place of fakes


@dataclass
class RunConfig:
    """What every run has."""

    seed: int = 0  # of initialisation, order, noise and latents
    label: str = ""  # name of the run's arm in stage=compare
    sweep_metric: str = (
        ""  # tag of the metric that train.py returns to a sweep; empty: what chooses the best checkpoint
    )

    def check_sweep_metric(self, names: tuple[str, ...]) -> None:
        """`sweep_metric` must be among what the run has at its end."""
        require(self.sweep_metric in names, "sweep_metric", f"one of {', '.join(names)}", self.sweep_metric)


@dataclass
class VAEParts(VAEConfig):
    """The model, its data, and what its training minimises."""

    dataset: ImageSource.Config = MISSING
    objective: Objective.Config = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.likelihood is None:
            self.likelihood = Likelihood.choices[self.dataset.component.LIKELIHOOD].Config()

    def check_schedule(self, trainer: TrainerConfig) -> None:
        """The weight of the KL must reach its value before the training ends."""
        if self.objective.beta_schedule != "constant":
            expected = f"at most the {trainer.max_epochs} epochs of the training"
            epochs = self.objective.beta_warmup_epochs
            require(epochs <= trainer.max_epochs, "objective.beta_warmup_epochs", expected, epochs)


@dataclass
class VAERun(VAETraining, VAEParts, RunConfig):
    """stage=vae"""

    def __post_init__(self) -> None:
        VAEParts.__post_init__(self)
        VAETraining.__post_init__(self)
        self.check_schedule(self.trainer)
        bound = self.objective.bound
        tags = {"elbo", bound, "log_likelihood", "kl"}
        self.sweep_metric = self.sweep_metric or f"val/{bound}"
        self.check_sweep_metric((f"val/{bound}", *(f"test/{tag}" for tag in sorted(tags)), "val/nll"))

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.vae import train_vae

        result = train_vae(self, output_dir)
        if self.sweep_metric == "val/nll":
            result.metrics["val/nll"] = self.evaluation(output_dir).execute(output_dir).metrics["val/nll"]
        return result

    def evaluation(self, output_dir: Path) -> EvaluateRun:
        """What finds the NLL of a finished run for a sweep."""
        num_images = min(NUM_NLL_IMAGES, len(self.dataset.build().split("val").images))
        devices = DeviceConfig(**_parts(self.trainer, DeviceConfig))
        return EvaluateRun(
            ckpt=str(output_dir),
            split="val",
            num_images=num_images,
            num_samples=NUM_NLL_SAMPLES,
            seed=self.seed,
            trainer=devices,
        )


@dataclass
class GANRun(GANTraining, GANConfig, RunConfig):
    """stage=gan"""

    dataset: ImageSource.Config | None = None  # null: the data set that the VAE was trained on
    vae_ckpt: str = ""  # run folder or checkpoint of a stage=vae run
    sweep_metric: str = "val/frechet_distance"

    def __post_init__(self) -> None:
        GANTraining.__post_init__(self)
        self.check_sweep_metric(("val/frechet_distance", "test/frechet_distance"))
        require(
            self.vae_ckpt != "",
            "vae_ckpt",
            "the folder or the checkpoint of a stage=vae run (to make one: python train.py stage=vae)",
            self.vae_ckpt,
        )

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.gan import train_gan

        return train_gan(self, output_dir)


@dataclass
class EvaluateRun(RunConfig):
    """stage=evaluate"""

    ckpt: str = ""  # run folder or checkpoint of a stage=vae or stage=gan run; of a folder with both, the VAE
    dataset: ImageSource.Config | None = None  # null: the data set that the VAE was trained on
    features: FeatureNetwork.Config | None = None  # of a GAN's scores; null: as in its training
    split: str = "test"  # train, val, test
    num_images: int | None = None  # the first ones of the split; null: all
    num_samples: int = 1000  # importance samples of each image, of a VAE
    batch_size: int = 100  # images that are encoded at once on each device
    chunk_size: int = 2000  # latents that are decoded at once: memory grows with it, and with nothing else
    target_seed: int = 0  # of binarization and dequantization: the same image, the same noise
    trainer: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        expected = "the folder or the checkpoint of a stage=vae or stage=gan run (to make one: python train.py)"
        require(self.ckpt != "", "ckpt", expected, self.ckpt)
        require(self.split in ("train", "val", "test"), "split", "train, val or test", self.split)
        require(self.num_images is None or self.num_images >= 2, "num_images", "at least 2, or null", self.num_images)
        require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        expected = f"at least batch_size={self.batch_size}: one latent of each image that is encoded"
        require(self.chunk_size >= self.batch_size, "chunk_size", expected, self.chunk_size)
        if self.sweep_metric:
            self.check_sweep_metric((*self.sweep_metrics("vae"), *self.sweep_metrics("gan")))

    def sweep_metrics(self, stage: str) -> tuple[str, ...]:
        """What an evaluation of that stage's model can return to a sweep; the first one unless told otherwise."""
        names = {"vae": ("nll", "elbo", "log_likelihood", "kl"), "gan": ("frechet_distance", "kernel_distance")}
        return tuple(f"{self.split}/{name}" for name in names[stage])

    def choose_sweep_metric(self, stage: str) -> None:
        """Now that it is known what is evaluated."""
        names = self.sweep_metrics(stage)
        self.sweep_metric = self.sweep_metric or names[0]
        self.check_sweep_metric(names)

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.evaluate import evaluate

        return evaluate(self, output_dir)


@dataclass
class CompareRun(RunConfig):
    """stage=compare"""

    runs: list[str] = field(default_factory=list)  # folders of finished GAN runs or multiruns, or globs of them
    baseline: str = "cold"  # label of the runs that all others are held against

    def __post_init__(self) -> None:
        expected = "the folders of finished stage=gan, stage=pipeline or multirun runs, such as runs=[multirun/gan/*]"
        require(len(self.runs) > 0 and all(self.runs), "runs", expected, self.runs)
        require(self.baseline != "", "baseline", "the label of the runs to compare with", self.baseline)
        expected = "empty in stage=compare, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)

    def execute(self, output_dir: Path) -> None:
        from vaegan.stages.compare import compare

        compare(self.runs, self.baseline, output_dir)


@dataclass
class OptimizeRun(RunConfig):
    """stage=optimize"""

    dataset: ImageSource.Config = MISSING
    output: str = ""  # where the chunks go: a folder, or an address such as s3://bucket/folder
    chunk_mb: int = 64  # size of a chunk; a training keeps a few of them in memory
    num_workers: int = 1  # processes that write

    def __post_init__(self) -> None:
        require(self.output != "", "output", "the folder or the address that the chunks go to", self.output)
        require(self.chunk_mb >= 1, "chunk_mb", "at least 1", self.chunk_mb)
        require(self.num_workers >= 1, "num_workers", "at least 1", self.num_workers)
        expected = "empty in stage=optimize, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)

    def execute(self, output_dir: Path) -> None:
        from vaegan.stages.optimize import optimize

        optimize(self)


@dataclass
class PipelineRun(GANConfig, VAEParts, RunConfig):
    """stage=pipeline: both stages. Parts stand at the top, the settings of a stage's training under its name."""

    vae: VAETraining = field(default_factory=VAETraining)
    gan: GANTraining = field(default_factory=GANTraining)
    sweep_metric: str = "val/frechet_distance"

    def __post_init__(self) -> None:
        VAEParts.__post_init__(self)
        self.check_schedule(self.vae.trainer)
        self.check_sweep_metric(("val/frechet_distance", "test/frechet_distance"))
        for stage, trainer in (("vae", self.vae.trainer), ("gan", self.gan.trainer)):
            expected = "1 in stage=pipeline; on several devices run stage=vae, then stage=gan"
            devices = trainer.devices * trainer.num_nodes
            require(devices == 1, f"{stage}.trainer.devices * {stage}.trainer.num_nodes", expected, devices)

    def vae_run(self) -> VAERun:
        """The first stage."""
        parts = _parts(self, VAEParts) | _parts(self.vae, VAETraining)
        return VAERun(**parts, seed=self.seed)

    def gan_run(self, vae_ckpt: str) -> GANRun:
        """The second stage."""
        parts = _parts(self, GANConfig) | _parts(self.gan, GANTraining)
        return GANRun(**parts, seed=self.seed, label=self.label, vae_ckpt=vae_ckpt)

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.pipeline import train_pipeline

        return train_pipeline(self, output_dir)


def _parts(config: Any, schema: type) -> dict[str, Any]:
    """The fields of a config that a schema names."""
    return {name: getattr(config, name) for name in schema.__dataclass_fields__}  # type: ignore[attr-defined]
