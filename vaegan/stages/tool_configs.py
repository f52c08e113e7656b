"""Settings of the stages that do not train."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vaegan.config import require
from vaegan.data.dataset import ImageSource
from vaegan.data.image_folder import ImageFolder
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.metric_table import sweep_metrics
from vaegan.runtime.paths import absolute_path
from vaegan.stages.run_config import RunConfig, with_absolute_paths
from vaegan.training.trainer_config import DeviceConfig

CKPT_EXPECTED = (
    "the folder or the checkpoint of a stage=vae or stage=gan run (to train one: python train.py)"
)

FULL_SAMPLES = 1000  # importance samples per image of published results
QUICK_SAMPLES = 250  # importance samples per image of a quick evaluation
QUICK_IMAGES = 2000  # images of a quick evaluation


@dataclass
class EvaluateRun(RunConfig):
    """Settings of stage=evaluate."""

    # run folder, checkpoint or export of a VAE or a GAN; in a folder with both, the VAE is used;
    # last: the newest model in outputs/
    ckpt: str = ""
    # data set to evaluate on; null: the data set that the VAE was trained on
    dataset: ImageSource.Config | None = None
    # feature extractor for the scores of generated images; null: for a GAN the one used in its
    # training, for a VAE digits_cnn if it knows the data set's classes, else pyramid, or
    # vae_encoder for images below 16 pixels
    feature_extractor: FeatureExtractor.Config | None = None
    split: str = "test"  # split to evaluate on: train, val or test
    # true: score a VAE on all images with 1,000 importance samples each, as in publications; false:
    # on 2,000 images with 250 samples each, about a minute on two CPU cores for MNIST (VAE only)
    full: bool = False
    # number of images, taken from the start of the split, >= 2; null: all, or for a VAE with
    # full=false 2,000 evenly spaced ones
    num_images: int | None = None
    # independent draws of latents, each with as many images as are evaluated, >= 1; scores of
    # generated images are reported as mean and standard error over the draws; 0 (VAE only): no such
    # scores
    num_draws: int = 4
    # training images, from the start of the split, that are compared with the generated images to
    # find copies, >= 2; null: all; 0: no search for copies
    num_train_images: int | None = 60_000
    # importance samples per image, >= 1; null: 250, or 1,000 with full=true (VAE only)
    num_samples: int | None = None
    # images per batch on each device, >= 1; fewer for a VAE if num_samples is large
    batch_size: int = 100
    # latent vectors decoded at once, >= batch_size; limits memory use (VAE only)
    chunk_size: int = 2000
    # random seed of binarization and dequantization, which depend only on the seed and the image
    # (VAE only)
    target_seed: int = 0
    trainer: DeviceConfig = field(default_factory=DeviceConfig)  # devices to run on

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        require(self.split in ("train", "val", "test"), "split", "train, val or test", self.split)
        num_images = self.num_images
        is_valid = num_images is None or num_images >= 2
        require(is_valid, "num_images", "at least 2, or null", num_images)
        num_samples = self.num_samples
        is_valid = num_samples is None or num_samples >= 1
        require(is_valid, "num_samples", "at least 1", num_samples)
        require(self.num_draws >= 0, "num_draws", "at least 0", self.num_draws)
        num_train = self.num_train_images
        is_valid = num_train is None or num_train == 0 or num_train >= 2
        require(is_valid, "num_train_images", "0, at least 2, or null", num_train)
        require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size)
        expected = f"at least batch_size={self.batch_size}, one latent per image of a batch"
        require(self.chunk_size >= self.batch_size, "chunk_size", expected, self.chunk_size)
        self.check_sweep_metric((*self.sweep_tags("vae"), *self.sweep_tags("gan")))

    def resolve_defaults(self) -> EvaluateRun:
        return replace(
            self,
            ckpt=absolute_path(self.ckpt),
            dataset=with_absolute_paths(self.dataset),
            feature_extractor=with_absolute_paths(self.feature_extractor),
        )

    def samples_per_image(self) -> int:
        """Return the number of importance samples per image of a VAE."""
        return self.num_samples or (FULL_SAMPLES if self.full else QUICK_SAMPLES)

    def sweep_tags(self, stage: str) -> tuple[str, ...]:
        """Return the tags that a sweep can optimize for a model of a stage, the default first."""
        return tuple(f"{self.split}/{name}" for name in sweep_metrics(stage))

    def check_stage(self, stage: str) -> None:
        """Check the settings that depend on the stage of the model.

        Raises:
            ValueError: `sweep_metric` is not a metric of this stage, or a GAN is not to be scored.
        """
        self.check_sweep_metric(self.sweep_tags(stage))
        expected = "at least 1 for a GAN"
        require(stage == "vae" or self.num_draws >= 1, "num_draws", expected, self.num_draws)

    def devices(self) -> DeviceConfig:
        return self.trainer


@dataclass
class ExportRun(RunConfig):
    """Settings of stage=export."""

    # run folder, checkpoint or export of a VAE or a GAN; in a folder with both, the VAE is used;
    # last: the newest model in outputs/
    ckpt: str = ""
    # files to write: safetensors (can be loaded by vaegan), or for other programs onnx or pt2
    # (torch.export)
    format: str = "safetensors"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        is_known = self.format in ("safetensors", "onnx", "pt2")
        require(is_known, "format", "safetensors, onnx or pt2", self.format)
        self.require_no_sweep_metric("export")


@dataclass
class CompareRun(RunConfig):
    """Settings of stage=compare."""

    # folders of finished GAN runs or of multiruns, or glob patterns that match such folders
    runs: list[str] = field(default_factory=list)
    baseline: str = "cold"  # label of the runs that all other runs are compared with
    # criterion: maximum generator updates to reach the same Frechet distance, as a fraction of the
    # baseline's, > 0
    max_update_ratio: float = 0.25
    max_rise: float = 1.1  # criterion: maximum Frechet distance relative to its initial value, > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (
            "the folders of finished stage=gan, stage=pipeline or multirun runs, such as "
            "runs=[multirun/gan/*]"
        )
        require(len(self.runs) > 0 and all(self.runs), "runs", expected, self.runs)
        expected = "the label of the runs to compare with"
        require(self.baseline != "", "baseline", expected, self.baseline)
        for key in ("max_update_ratio", "max_rise"):
            require(getattr(self, key) > 0, key, "positive", getattr(self, key))
        self.require_no_sweep_metric("compare")


@dataclass
class PackRun(RunConfig):
    """Settings of stage=pack."""

    # data set to write
    dataset: ImageSource.Config = field(default_factory=ImageFolder.Config)
    output: str = ""  # folder to write the chunks to, or a URL such as s3://bucket/folder
    chunk_mb: int = 64  # chunk size in MB, >= 1; training keeps a few chunks in memory
    num_workers: int = 1  # processes that write chunks, >= 1

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "the folder or the URL to write the chunks to"
        require(self.output != "", "output", expected, self.output)
        require(self.chunk_mb >= 1, "chunk_mb", "at least 1", self.chunk_mb)
        require(self.num_workers >= 1, "num_workers", "at least 1", self.num_workers)
        self.require_no_sweep_metric("pack")
