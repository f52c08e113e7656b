"""Settings of the stages that train nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vaegan.config import require
from vaegan.data.dataset import ImageSource
from vaegan.data.image_folder import ImageFolder
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.metric_table import sweep_metrics
from vaegan.stages.run_config import RunConfig
from vaegan.training.trainer_config import DeviceConfig

CKPT_EXPECTED = (
    "the folder or the checkpoint of a stage=vae or stage=gan run (to make one: python train.py)"
)


@dataclass
class EvaluateRun(RunConfig):
    """Settings of stage=evaluate."""

    # run folder, checkpoint or export of a VAE or a GAN; of a folder with both, the VAE
    ckpt: str = ""
    dataset: ImageSource.Config | None = None  # null: the data set that the VAE was trained on
    feature_extractor: FeatureExtractor.Config | None = None  # null: as in the GAN's training
    split: str = "test"  # train, val, test
    num_images: int | None = None  # the first images of the split; null: all
    num_samples: int = 1000  # importance samples of each image, of a VAE
    batch_size: int = 100  # images that are encoded at once on each device
    chunk_size: int = 2000  # latents that are decoded at once: memory grows with it alone
    target_seed: int = 0  # of binarization and dequantization: a function of it and of the image
    trainer: DeviceConfig = field(default_factory=DeviceConfig)

    def __post_init__(self) -> None:
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        require(self.split in ("train", "val", "test"), "split", "train, val or test", self.split)
        num_images = self.num_images
        is_valid = num_images is None or num_images >= 2
        require(is_valid, "num_images", "at least 2, or null", num_images)
        require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        expected = (
            f"at least batch_size={self.batch_size}: one latent of each image that is encoded"
        )
        require(self.chunk_size >= self.batch_size, "chunk_size", expected, self.chunk_size)
        self.check_sweep_metric((*self.sweep_tags("vae"), *self.sweep_tags("gan")))

    def sweep_tags(self, stage: str) -> tuple[str, ...]:
        """Return the metrics of a stage's model that a sweep can get, the default one first."""
        return tuple(f"{self.split}/{name}" for name in sweep_metrics(stage))

    def for_stage(self, stage: str) -> EvaluateRun:
        """Return the config with the sweep metric of that stage's model.

        Raises:
            ValueError: The sweep metric is one of another stage.
        """
        tags = self.sweep_tags(stage)
        self.check_sweep_metric(tags)
        return replace(self, sweep_metric=self.sweep_metric or tags[0])

    def devices(self) -> DeviceConfig:
        return self.trainer


@dataclass
class ExportRun(RunConfig):
    """Settings of stage=export."""

    # run folder or checkpoint of a VAE or a GAN; of a folder with both, the VAE
    ckpt: str = ""

    def __post_init__(self) -> None:
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        self.require_no_sweep_metric("export")


@dataclass
class CompareRun(RunConfig):
    """Settings of stage=compare."""

    # folders of finished GAN runs or multiruns, or globs of them
    runs: list[str] = field(default_factory=list)
    baseline: str = "cold"  # label of the runs that all others are compared with
    max_update_ratio: float = 0.25  # of generator updates to the baseline's, to reach its distances
    max_rise: float = 1.1  # of the Frechet distance over its start

    def __post_init__(self) -> None:
        expected = (
            "the folders of finished stage=gan, stage=pipeline or multirun runs, such as "
            "runs=[multirun/gan/*]"
        )
        require(len(self.runs) > 0 and all(self.runs), "runs", expected, self.runs)
        expected = "the label of the runs to compare with"
        require(self.baseline != "", "baseline", expected, self.baseline)
        for key in ("max_update_ratio", "max_rise"):
            require(getattr(self, key) > 0, key, "more than 0", getattr(self, key))
        self.require_no_sweep_metric("compare")


@dataclass
class PackRun(RunConfig):
    """Settings of stage=pack."""

    dataset: ImageSource.Config = field(default_factory=ImageFolder.Config)
    output: str = ""  # folder of the chunks, or an address such as s3://bucket/folder
    chunk_mb: int = 64  # size of a chunk; a training keeps a few of them in memory
    num_workers: int = 1  # processes that write

    def __post_init__(self) -> None:
        expected = "the folder or the address that the chunks go to"
        require(self.output != "", "output", expected, self.output)
        require(self.chunk_mb >= 1, "chunk_mb", "at least 1", self.chunk_mb)
        require(self.num_workers >= 1, "num_workers", "at least 1", self.num_workers)
        self.require_no_sweep_metric("pack")
