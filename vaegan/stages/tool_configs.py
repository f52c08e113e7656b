"""What a command line composes to where nothing is trained: one typed run for each stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.dataset import ImageSource
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.table import sweep_metrics
from vaegan.stages.run_config import RunConfig
from vaegan.training.stage_result import StageResult
from vaegan.training.trainer_config import DeviceConfig


@dataclass
class EvaluateRun(RunConfig):
    """stage=evaluate"""

    ckpt: str = ""  # run folder or checkpoint of a stage=vae or stage=gan run; of a folder with both, the VAE
    dataset: ImageSource.Config | None = None  # null: the data set that the VAE was trained on
    feature_extractor: FeatureExtractor.Config | None = None  # null: as in the GAN's training
    split: str = "test"  # train, val, test
    num_images: int | None = None  # the first ones of the split; null: all
    num_samples: int = 1000  # importance samples of each image, of a VAE
    batch_size: int = 100  # images that are encoded at once on each device
    chunk_size: int = (
        2000  # latents that are decoded at once: memory grows with it, and with nothing else
    )
    target_seed: int = 0  # of binarization and dequantization: the same image, the same noise
    trainer: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        expected = "the folder or the checkpoint of a stage=vae or stage=gan run (to make one: python train.py)"
        require(self.ckpt != "", "ckpt", expected, self.ckpt)
        require(self.split in ("train", "val", "test"), "split", "train, val or test", self.split)
        require(
            self.num_images is None or self.num_images >= 2,
            "num_images",
            "at least 2, or null",
            self.num_images,
        )
        require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        expected = (
            f"at least batch_size={self.batch_size}: one latent of each image that is encoded"
        )
        require(self.chunk_size >= self.batch_size, "chunk_size", expected, self.chunk_size)
        if self.sweep_metric:
            self.check_sweep_metric((*self.sweep_metrics("vae"), *self.sweep_metrics("gan")))

    def sweep_metrics(self, stage: str) -> tuple[str, ...]:
        """What an evaluation of that stage's model can return to a sweep; the first one unless told otherwise."""
        return tuple(f"{self.split}/{name}" for name in sweep_metrics(stage))

    def choose_sweep_metric(self, stage: str) -> None:
        """Now that it is known what is evaluated."""
        names = self.sweep_metrics(stage)
        self.sweep_metric = self.sweep_metric or names[0]
        self.check_sweep_metric(names)

    def devices(self) -> DeviceConfig:
        return self.trainer

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.evaluate import evaluate

        return evaluate(self, output_dir)


@dataclass
class ExportRun(RunConfig):
    """stage=export"""

    ckpt: str = ""  # run folder or checkpoint of a stage=vae or stage=gan run; of a folder with both, the VAE

    def __post_init__(self) -> None:
        expected = "the folder or the checkpoint of a stage=vae or stage=gan run (to make one: python train.py)"
        require(self.ckpt != "", "ckpt", expected, self.ckpt)
        expected = "empty in stage=export, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)

    def devices(self) -> None:
        return None

    def execute(self, output_dir: Path) -> None:
        from vaegan.stages.export import export

        export(self, output_dir)


@dataclass
class CompareRun(RunConfig):
    """stage=compare"""

    runs: list[str] = field(
        default_factory=list
    )  # folders of finished GAN runs or multiruns, or globs of them
    baseline: str = "cold"  # label of the runs that all others are compared with
    max_update_ratio: float = 0.25  # of generator updates to the baseline's, to reach its distances
    max_rise: float = 1.1  # of the Frechet distance over its start

    def __post_init__(self) -> None:
        expected = "the folders of finished stage=gan, stage=pipeline or multirun runs, such as runs=[multirun/gan/*]"
        require(len(self.runs) > 0 and all(self.runs), "runs", expected, self.runs)
        require(
            self.baseline != "", "baseline", "the label of the runs to compare with", self.baseline
        )
        for key in ("max_update_ratio", "max_rise"):
            require(getattr(self, key) > 0, key, "more than 0", getattr(self, key))
        expected = "empty in stage=compare, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)

    def devices(self) -> None:
        return None

    def execute(self, output_dir: Path) -> None:
        from vaegan.reports.comparison import Criteria
        from vaegan.stages.compare import compare

        criteria = Criteria(self.baseline, self.max_update_ratio, self.max_rise)
        compare(self.runs, criteria, output_dir)


@dataclass
class PackRun(RunConfig):
    """stage=optimize"""

    dataset: ImageSource.Config = MISSING
    output: str = ""  # where the chunks go: a folder, or an address such as s3://bucket/folder
    chunk_mb: int = 64  # size of a chunk; a training keeps a few of them in memory
    num_workers: int = 1  # processes that write

    def __post_init__(self) -> None:
        require(
            self.output != "",
            "output",
            "the folder or the address that the chunks go to",
            self.output,
        )
        require(self.chunk_mb >= 1, "chunk_mb", "at least 1", self.chunk_mb)
        require(self.num_workers >= 1, "num_workers", "at least 1", self.num_workers)
        expected = "empty in stage=optimize, which trains nothing"
        require(self.sweep_metric == "", "sweep_metric", expected, self.sweep_metric)

    def devices(self) -> None:
        return None

    def execute(self, output_dir: Path) -> None:
        from vaegan.stages.pack import optimize

        optimize(self)
