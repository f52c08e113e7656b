"""Settings of the stages that use a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vaegan.config import require
from vaegan.stages.run_config import RunConfig
from vaegan.stages.tool_configs import CKPT_EXPECTED

DEFAULT_NUM_IMAGES = 64


@dataclass
class SampleRun(RunConfig):
    """Settings of stage=sample."""

    # run folder, checkpoint or export of a VAE or a GAN; in a folder with both, the VAE is used;
    # last: the newest model in outputs/
    ckpt: str = ""
    # number of images, >= 1, with the random seeds seed, seed + 1, ...; null: 64
    num_images: int | None = None
    # random seeds of the images: a seed, a range such as 0-63, or a list such as [0,7,10-20]; null:
    # num_images consecutive seeds, starting at seed. An image depends only on its own seed
    seeds: Any = None
    # output: png (one file per image), grid (one PNG file) or npz (uint8 images and latents)
    format: str = "png"
    # scale factor of the latent noise, >= 0; 1: the model's distribution; below 1: more typical
    # and less varied images
    temperature: float = 1.0
    # image of a latent: mean of p(x|z), or draw, a random sample from it (VAE only)
    mean_or_draw: str = "mean"
    # seeds between which to interpolate, in the notation of seeds; writes a strip of images, a GIF
    # and a WebP file; null: none
    interpolation: Any = None
    num_steps: int = 16  # images from one seed of the interpolation to the next, >= 2
    # true: write an image grid in which the most active latents of the first seed vary, one per row
    traversal: bool = False
    # device to run on: auto, cpu, cuda, cuda:1 or mps; auto prefers a GPU
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        num_images = self.num_images
        is_valid = num_images is None or num_images >= 1
        require(is_valid, "num_images", "at least 1, or null", num_images)
        is_single = num_images is None or self.seeds is None
        expected = "null with seeds, which already give the number of images"
        require(is_single, "num_images", expected, num_images)
        is_known = self.format in ("png", "grid", "npz")
        require(is_known, "format", "png, grid or npz", self.format)
        require(self.temperature >= 0, "temperature", "at least 0", self.temperature)
        is_known = self.mean_or_draw in ("mean", "draw")
        require(is_known, "mean_or_draw", "mean or draw", self.mean_or_draw)
        require(self.num_steps >= 2, "num_steps", "at least 2", self.num_steps)
        require(self.seed >= 0, "seed", "at least 0", self.seed)
        self.require_no_sweep_metric("sample")

    @property
    def writes_samples(self) -> bool:
        """False if only an interpolation or a traversal is asked for."""
        is_other = self.interpolation is not None or self.traversal
        return not is_other or self.num_images is not None or self.seeds is not None


@dataclass
class EncodeRun(RunConfig):
    """Settings of stage=encode."""

    # run folder, checkpoint or export of a VAE or a GAN; in a folder with both, the VAE is used;
    # last: the newest model in outputs/
    ckpt: str = ""
    images: str = ""  # folder of image files, or one image file
    num_samples: int = 100  # importance samples per image, >= 1 (VAE only)
    # images of the test split to score for the ranks, >= 0; 0: no ranks (VAE only)
    num_ranked: int = 500
    # random seed of binarization and dequantization, which depend only on the seed and the image
    target_seed: int = 0
    inversion_steps: int = 200  # optimization steps of the latents of an image, >= 0 (GAN only)
    inversion_lr: float = 0.05  # learning rate of the latents, > 0 (GAN only)
    # number of the generator's last layers to optimize too, separately for each image, >= 0 (GAN
    # only)
    inversion_layers: int = 0
    # device to run on: auto, cpu, cuda, cuda:1 or mps; auto prefers a GPU
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ckpt != "", "ckpt", CKPT_EXPECTED, self.ckpt)
        require(self.images != "", "images", "a folder of image files, or one file", self.images)
        require(self.num_samples >= 1, "num_samples", "at least 1", self.num_samples)
        for key in ("num_ranked", "inversion_steps", "inversion_layers"):
            require(getattr(self, key) >= 0, key, "at least 0", getattr(self, key))
        require(self.inversion_lr > 0, "inversion_lr", "positive", self.inversion_lr)
        self.require_no_sweep_metric("encode")


@dataclass
class RunsRun(RunConfig):
    """Settings of stage=runs."""

    folder: str = "outputs"  # folder whose runs are listed, subfolders included

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_no_sweep_metric("runs")
