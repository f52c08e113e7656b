"""What a command line composes to: one typed run for each stage. No Lightning is imported before a run executes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import MISSING

from vaegan.config import require
from vaegan.data.dataset import ImageSource
from vaegan.gan.training_config import GANConfig, GANTraining
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.stages.run_config import TrainingRun
from vaegan.training.stage_result import StageResult
from vaegan.training.trainer_config import DeviceConfig, TrainerConfig
from vaegan.vae.model import VAEConfig
from vaegan.vae.objectives import Objective
from vaegan.vae.training_config import VAETraining


@dataclass
class VAEParts(VAEConfig):
    """The model, its data, and what its training minimizes."""

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
class VAERun(VAETraining, VAEParts, TrainingRun):
    """stage=vae"""

    STAGE: ClassVar[str] = "vae"

    def __post_init__(self) -> None:
        VAEParts.__post_init__(self)
        VAETraining.__post_init__(self)
        self.check_schedule(self.trainer)
        bound = self.objective.bound_name
        tags = {"elbo", bound, "log_likelihood", "kl"}
        self.sweep_metric = self.sweep_metric or f"val/{bound}"
        self.check_sweep_metric(
            (f"val/{bound}", *(f"test/{tag}" for tag in sorted(tags)), "val/nll")
        )

    def devices(self) -> DeviceConfig:
        return self.trainer

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.vae import train_vae

        return train_vae(self, output_dir)


@dataclass
class GANRun(GANTraining, GANConfig, TrainingRun):
    """stage=gan"""

    STAGE: ClassVar[str] = "gan"
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
        if "://" not in self.vae_ckpt:
            self.vae_ckpt = str(
                Path(self.vae_ckpt).expanduser().absolute()
            )  # for who goes on from elsewhere

    def devices(self) -> DeviceConfig:
        return self.trainer

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.gan import train_gan

        return train_gan(self, output_dir)


@dataclass
class SharedTrainerOverrides:
    """Where to run both stages; null: where vae.trainer and gan.trainer say."""

    accelerator: str | None = None
    devices: int | None = None
    num_nodes: int | None = None
    strategy: str | None = None
    precision: str | None = None
    enable_progress_bar: bool | None = None

    def settle(self, stage: str, training: VAETraining | GANTraining) -> None:
        """Put what is set into the place of what a stage's own trainer says."""
        for key, value in vars(self).items():
            if value is not None:
                setattr(training.trainer, key, value)
        try:
            training.trainer.__post_init__()
            training.__post_init__()
        except ValueError as error:
            raise ValueError(f"{stage}.{error}") from error


@dataclass
class PipelineRun(GANConfig, VAEParts, TrainingRun):
    """stage=pipeline: both stages. Parts stand at the top, the settings of a stage's training under its name."""

    STAGE: ClassVar[str] = "pipeline"
    vae: VAETraining = field(default_factory=VAETraining)
    gan: GANTraining = field(default_factory=GANTraining)
    trainer: SharedTrainerOverrides = field(default_factory=SharedTrainerOverrides)
    sweep_metric: str = "val/frechet_distance"

    def __post_init__(self) -> None:
        VAEParts.__post_init__(self)
        self.check_schedule(self.vae.trainer)
        self.check_sweep_metric(("val/frechet_distance", "test/frechet_distance"))
        self.trainer.settle("vae", self.vae)
        self.trainer.settle("gan", self.gan)
        both = [
            (trainer.devices, trainer.num_nodes) for trainer in (self.vae.trainer, self.gan.trainer)
        ]
        expected = "the same in both stages; trainer.devices and trainer.num_nodes set both"
        require(both[0] == both[1], "vae.trainer.devices and gan.trainer.devices", expected, both)

    def vae_run(self) -> VAERun:
        """The first stage."""
        parts = _parts(self, VAEParts) | _parts(self.vae, VAETraining)
        return VAERun(**parts, seed=self.seed)

    def gan_run(self, vae_ckpt: str) -> GANRun:
        """The second stage."""
        parts = _parts(self, GANConfig) | _parts(self.gan, GANTraining)
        return GANRun(**parts, seed=self.seed, label=self.label, vae_ckpt=vae_ckpt)

    def devices(self) -> DeviceConfig:
        return self.vae.trainer

    def execute(self, output_dir: Path) -> StageResult:
        from vaegan.stages.pipeline import train_pipeline

        return train_pipeline(self, output_dir)


def _parts(config: Any, schema: type) -> dict[str, Any]:
    """The fields of a config that a schema names."""
    return {name: getattr(config, name) for name in schema.__dataclass_fields__}  # type: ignore[attr-defined]
