"""What a command line composes to: one typed run for each stage. No Lightning is imported before a run executes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.datasets import ImageSource
from vaegan.models import VAEConfig
from vaegan.training import GANConfig, GANTraining, VAETraining


@dataclass
class StageResult:
    """What a stage leaves behind."""

    folder: Path
    checkpoint: Path  # the best one
    metrics: dict[str, float]  # by tag, such as test/elbo


@dataclass
class RunConfig:
    """What every run has."""

    seed: int = 0  # of initialisation, order, noise and latents
    sweep_metric: str = ""  # tag of the metric that train.py returns to a sweep

    def check_sweep_metric(self, names: tuple[str, ...]) -> None:
        """`sweep_metric` must be among what the run has at its end."""
        require(self.sweep_metric in names, "sweep_metric", f"one of {', '.join(names)}", self.sweep_metric)


@dataclass
class VAERun(VAETraining, VAEConfig, RunConfig):
    """stage=vae"""

    dataset: ImageSource.Config = MISSING
    sweep_metric: str = "val/elbo"

    def __post_init__(self) -> None:
        VAEConfig.__post_init__(self)
        VAETraining.__post_init__(self)
        self.check_sweep_metric(("val/elbo", "test/elbo", "test/log_likelihood", "test/kl"))

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.vae import train_vae

        return train_vae(self, output_dir)


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
class PipelineRun(GANConfig, VAEConfig, RunConfig):
    """stage=pipeline: both stages. Parts stand at the top, the settings of a stage's training under its name."""

    dataset: ImageSource.Config = MISSING
    vae: VAETraining = field(default_factory=VAETraining)
    gan: GANTraining = field(default_factory=GANTraining)
    sweep_metric: str = "val/frechet_distance"

    def __post_init__(self) -> None:
        VAEConfig.__post_init__(self)
        self.check_sweep_metric(("val/frechet_distance", "test/frechet_distance"))
        for stage, trainer in (("vae", self.vae.trainer), ("gan", self.gan.trainer)):
            expected = "1 in stage=pipeline; on several devices run stage=vae, then stage=gan"
            devices = trainer.devices * trainer.num_nodes
            require(devices == 1, f"{stage}.trainer.devices * {stage}.trainer.num_nodes", expected, devices)

    def vae_run(self) -> VAERun:
        """The first stage."""
        return VAERun(**_parts(self, VAEConfig), **_parts(self.vae, VAETraining), seed=self.seed, dataset=self.dataset)

    def gan_run(self, vae_ckpt: str) -> GANRun:
        """The second stage."""
        return GANRun(**_parts(self, GANConfig), **_parts(self.gan, GANTraining), seed=self.seed, vae_ckpt=vae_ckpt)

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.pipeline import train_pipeline

        return train_pipeline(self, output_dir)


def _parts(config: Any, schema: type) -> dict[str, Any]:
    """The fields of a config that a schema names."""
    return {name: getattr(config, name) for name in schema.__dataclass_fields__}  # type: ignore[attr-defined]
