"""Settings of the stages that train. This module does not import Lightning."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any, Self

from vaegan.config import require
from vaegan.data.dataset import ImageSource
from vaegan.data.mnist import Mnist
from vaegan.gan.training_config import GANConfig, GANTraining
from vaegan.metrics.metric_table import MONITORS, sweep_metrics
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.runtime.last_run import find_last_checkpoint
from vaegan.runtime.paths import LAST, absolute_path
from vaegan.stages.run_config import TrainingRun, with_absolute_paths
from vaegan.training.trainer_config import DeviceConfig
from vaegan.vae.model import VAEConfig
from vaegan.vae.objectives import ElboObjective, Objective
from vaegan.vae.training_config import VAETraining


@dataclass
class VAEComponents(VAEConfig):
    """Model, data set and training objective of a VAE."""

    dataset: ImageSource.Config = field(default_factory=Mnist.Config)  # data set to train on
    # training objective of the VAE
    objective: Objective.Config = field(default_factory=ElboObjective.Config)

    def resolved_likelihood(self) -> Likelihood.Config:
        """Return the noise model; if it is not set, the default of the data set."""
        if self.likelihood is not None:
            return self.likelihood
        return Likelihood.choices[self.dataset.component.LIKELIHOOD].Config()

    def check_schedule(self, num_epochs: float) -> None:
        """Check that the KL weight reaches its final value before training ends."""
        epochs = self.objective.beta_warmup_epochs
        if self.objective.beta_schedule != "constant" and epochs is not None:
            expected = f"at most {num_epochs:g}, the number of epochs"
            require(epochs <= num_epochs, "objective.beta_warmup_epochs", expected, epochs)

    def resolve_schedule(self, num_epochs: float) -> Self:
        """Return the config with the null length of the KL warm-up replaced.

        Raises:
            ValueError: The warm-up is longer than the training.
        """
        self.check_schedule(num_epochs)
        if self.objective.beta_warmup_epochs is not None:
            return self
        return replace(
            self, objective=replace(self.objective, beta_warmup_epochs=min(1.0, num_epochs))
        )


@dataclass
class InitialWeights:
    """Earlier model of the same stage to start from."""

    # run folder or checkpoint of an earlier model of the same stage whose weights training starts
    # from; last: the newest one in outputs/; empty: fresh weights, or for a GAN those of its VAE
    init: str = ""
    # what to do with layers that do not fit the earlier model: error, or fresh (keep fresh weights;
    # also accept networks that were trained with another padding, activation, emphasis or noise)
    init_mismatch: str = "error"

    def __post_init__(self) -> None:
        is_known = self.init_mismatch in ("error", "fresh")
        require(is_known, "init_mismatch", "error or fresh", self.init_mismatch)

    def resolve_init(self, stage: str) -> str:
        """Return `init` as an absolute path, because a run may be resumed from another folder."""
        path = str(find_last_checkpoint("init", [stage])) if self.init == LAST else self.init
        return absolute_path(path)


@dataclass
class VAERun(InitialWeights, VAETraining, VAEComponents, TrainingRun):
    """Settings of stage=vae."""

    def __post_init__(self) -> None:
        TrainingRun.__post_init__(self)
        InitialWeights.__post_init__(self)
        VAEComponents.__post_init__(self)
        VAETraining.__post_init__(self)
        if self.trainer.max_images is None and self.trainer.max_epochs is not None:
            self.check_schedule(self.trainer.max_epochs)
        bound = self.objective.bound_name
        tested = sorted({bound, *sweep_metrics("vae")} - {"nll"})
        tags = (f"val/{bound}", *(f"test/{name}" for name in tested), "val/nll")
        self.check_sweep_metric(tags)

    def resolve_defaults(self) -> VAERun:
        return replace(
            self,
            dataset=with_absolute_paths(self.dataset.resolve_defaults()),
            init=self.resolve_init("vae"),
            likelihood=self.resolved_likelihood(),
            sweep_metric=self.sweep_metric or f"val/{self.objective.bound_name}",
        )

    def devices(self) -> DeviceConfig:
        return self.trainer


def gan_sweep_tags() -> tuple[str, ...]:
    """Return the tags that GAN training can return to a sweep.

    The default is the metric that selects the best checkpoint, which depends on the data
    (`vaegan.metrics.scorer.Scorer.monitor`).
    """
    monitors = (f"val/{name}" for name in MONITORS)
    return (*monitors, *(f"test/{name}" for name in sweep_metrics("gan")))


@dataclass
class GANRun(InitialWeights, GANTraining, GANConfig, TrainingRun):
    """Settings of stage=gan."""

    # data set to train on; null: the data set that the VAE was trained on
    dataset: ImageSource.Config | None = None
    # run folder, checkpoint or export of the VAE to start from; last: the newest VAE in outputs/
    vae_ckpt: str = ""

    def __post_init__(self) -> None:
        TrainingRun.__post_init__(self)
        InitialWeights.__post_init__(self)
        GANTraining.__post_init__(self)
        self.check_sweep_metric(gan_sweep_tags())
        expected = (
            "the folder or the checkpoint of a stage=vae run (to train one: python train.py "
            "stage=vae)"
        )
        require(self.vae_ckpt != "" or self.init != "", "vae_ckpt", expected, self.vae_ckpt)
        expected = "empty with init, because the checkpoint of a GAN contains its VAE"
        require(self.vae_ckpt == "" or self.init == "", "vae_ckpt", expected, self.vae_ckpt)
        weights = self.warm_start.vae_weights
        expected = "null with init, because the checkpoint of a GAN contains its VAE"
        require(weights is None or self.init == "", "warm_start.vae_weights", expected, weights)

    def resolve_defaults(self) -> GANRun:
        vae_ckpt = self.vae_ckpt
        if vae_ckpt == LAST:
            vae_ckpt = str(find_last_checkpoint("vae_ckpt", ["vae"]).parents[1])
        return replace(
            self,
            dataset=with_absolute_paths(self.dataset and self.dataset.resolve_defaults()),
            feature_extractor=with_absolute_paths(self.feature_extractor),
            init=self.resolve_init("gan"),
            vae_ckpt=absolute_path(vae_ckpt),
        )

    def devices(self) -> DeviceConfig:
        return self.trainer


@dataclass
class SharedTrainerOverrides:
    """Device settings for both stages; null keeps the value in vae.trainer and gan.trainer."""

    # device type: auto, cpu, gpu or mps; null: as in vae.trainer and gan.trainer
    accelerator: str | None = None
    devices: int | None = None  # devices per node, >= 1; null: as in vae.trainer and gan.trainer
    # number of machines, >= 1; null: as in vae.trainer and gan.trainer
    num_nodes: int | None = None
    strategy: str | None = None  # Lightning strategy; null: as in vae.trainer and gan.trainer
    # floating-point precision of training steps: 32-true, bf16-mixed or 16-mixed; null: as in
    # vae.trainer and gan.trainer
    precision: str | None = None
    # show a progress bar; null: as in vae.trainer and gan.trainer
    enable_progress_bar: bool | None = None
    # precision of float32 matrix products in training steps: highest, high (TF32 on a GPU) or
    # medium (bfloat16); null: as in vae.trainer and gan.trainer
    matmul_precision: str | None = None
    # time the convolution algorithms of a GPU for each new shape, and use the fastest; null: as in
    # vae.trainer and gan.trainer
    benchmark: bool | None = None
    # use only deterministic operations, so that a GPU repeats and resumes runs bit for bit; null:
    # as in vae.trainer and gan.trainer
    deterministic: bool | None = None
    # compile the networks with torch.compile; null: as in vae.trainer and gan.trainer
    compile: bool | None = None
    # launch the kernels of a training step together as CUDA graphs; null: as in vae.trainer and
    # gan.trainer
    cuda_graphs: bool | None = None

    def apply_to(self, training: Any, stage: str) -> Any:
        """Return the training settings of a stage, with the values that are set here.

        Raises:
            ValueError: The result is invalid; the key in the message starts with the stage.
        """
        given = {key: value for key, value in vars(self).items() if value is not None}
        try:
            return replace(training, trainer=replace(training.trainer, **given))
        except ValueError as error:
            raise ValueError(f"{stage}.{error}") from error


@dataclass
class PipelineRun(GANConfig, VAEComponents, TrainingRun):
    """Settings of stage=pipeline: components of both stages, and training settings of each."""

    vae: VAETraining = field(default_factory=VAETraining)  # training of the VAE
    gan: GANTraining = field(default_factory=GANTraining)  # training of the GAN
    # device settings for both stages
    trainer: SharedTrainerOverrides = field(default_factory=SharedTrainerOverrides)

    def __post_init__(self) -> None:
        TrainingRun.__post_init__(self)
        VAEComponents.__post_init__(self)
        if self.vae.trainer.max_images is None and self.vae.trainer.max_epochs is not None:
            self.check_schedule(self.vae.trainer.max_epochs)
        self.check_sweep_metric(gan_sweep_tags())

    def resolve_defaults(self) -> PipelineRun:
        vae = self.trainer.apply_to(self.vae, "vae")
        gan = self.trainer.apply_to(self.gan, "gan")
        vae_devices = (vae.trainer.devices, vae.trainer.num_nodes)
        gan_devices = (gan.trainer.devices, gan.trainer.num_nodes)
        require(
            vae_devices == gan_devices,
            "vae.trainer.devices and gan.trainer.devices",
            "the same in both stages; trainer.devices and trainer.num_nodes set both",
            [vae_devices, gan_devices],
        )
        return replace(
            self,
            dataset=with_absolute_paths(self.dataset.resolve_defaults()),
            feature_extractor=with_absolute_paths(self.feature_extractor),
            likelihood=self.resolved_likelihood(),
            vae=vae,
            gan=gan,
        )

    def vae_run(self) -> VAERun:
        """Return the settings of the VAE stage."""
        values = fields_of(self, VAEComponents) | fields_of(self.vae, VAETraining)
        return VAERun(**values, seed=self.seed, callbacks=self.callbacks).resolve_defaults()

    def gan_run(self, vae_ckpt: str) -> GANRun:
        """Return the settings of the GAN stage, started from a VAE checkpoint."""
        values = fields_of(self, GANConfig) | fields_of(self.gan, GANTraining)
        run = GANRun(
            **values,
            seed=self.seed,
            label=self.label,
            callbacks=self.callbacks,
            vae_ckpt=vae_ckpt,
        )
        return run.resolve_defaults()

    def devices(self) -> DeviceConfig:
        return self.vae.trainer


def fields_of(config: Any, schema: type) -> dict[str, Any]:
    """Return the values of a config for the fields of a dataclass, by name."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(schema)}
