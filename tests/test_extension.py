"""Test of plugins: one component of each kind, a stage, a metric and a callback in one module."""

import contextlib
import io
import json
import sys
import textwrap

import pytest
from hydra.core.global_hydra import GlobalHydra

from vaegan.cli.main import main
from vaegan.config import GROUPS
from vaegan.metrics.metric_table import METRICS
from vaegan.metrics.sample_scores import SAMPLE_SCORES
from vaegan.stages.stage_table import STAGES
from vaegan.training.callback_table import CALLBACKS

PLUGIN = '''
"""One component of each kind."""

from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn
from torch.distributions import Independent, Normal, StudentT as StudentTDistribution

from vaegan.checkpoints.find_checkpoint import load_vae_checkpoint
from vaegan.data.dataset import ImageSource, Split
from vaegan.gan.augmentation import Augmentation
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.penalties import GradientPenalty
from vaegan.metrics.feature_extractors import FeatureExtractor
from vaegan.metrics.metric_table import Metric
from vaegan.metrics.sample_scores import sample_score
from vaegan.networks.decoders import Decoder
from vaegan.networks.discriminators import Discriminator
from vaegan.networks.encoders import Encoder
from vaegan.networks.trunks import Trunk
from vaegan.probability.likelihoods.density import Density
from vaegan.probability.posteriors import Posterior
from vaegan.probability.priors import Prior
from vaegan.stages.run_config import RunConfig
from vaegan.stages.stage_table import STAGES, Stage
from vaegan.training.callback_table import CALLBACKS
from vaegan.vae.objectives import ElboObjective


class StudentT(Density):
    @dataclass
    class Config(Density.Config):
        name: str = "my_student_t"
        degrees: float = 5.0

    def __init__(self, config, image_shape):
        super().__init__(config, image_shape)
        self.degrees = config.degrees

    def forward(self, params):
        return Independent(StudentTDistribution(self.degrees, params.sigmoid(), 0.1), 3)


class WideNormal(Prior):
    @dataclass
    class Config(Prior.Config):
        name: str = "my_prior"
        scale: float = 2.0

    def __init__(self, config, latent_dim, image_shape):
        super().__init__(config, latent_dim, image_shape)
        self.scale = config.scale
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self, encode):
        return Independent(Normal(self.zeros, self.scale), 1)


class FixedScale(Posterior):
    @dataclass
    class Config(Posterior.Config):
        name: str = "my_posterior"
        scale: float = 0.5

    def __init__(self, config, latent_dim):
        super().__init__(config, latent_dim, num_features=latent_dim)
        self.scale = config.scale

    def forward(self, features):
        return Independent(Normal(features, torch.full_like(features, self.scale)), 1)


class CustomElbo(ElboObjective):
    @dataclass
    class Config(ElboObjective.Config):
        name: str = "my_objective"


class FlatEncoder(Encoder):
    @dataclass
    class Config(Encoder.Config):
        name: str = "my_encoder"
        hidden_dim: int = 16

    def __init__(self, config, image_shape, num_features):
        size = torch.Size(image_shape).numel()
        layers = [nn.Flatten(), nn.Linear(size, config.hidden_dim), nn.SiLU()]
        architecture = {"network": "flat", "hidden_dim": config.hidden_dim}
        super().__init__(Trunk(layers, config.hidden_dim, architecture), num_features)


class FlatDiscriminator(Discriminator):
    @dataclass
    class Config(Discriminator.Config):
        name: str = "my_discriminator"
        hidden_dim: int = 16

    def __init__(self, config, image_shape):
        size = torch.Size(image_shape).numel()
        layers = [nn.Flatten(), nn.Linear(size, config.hidden_dim), nn.SiLU()]
        architecture = {"network": "flat", "hidden_dim": config.hidden_dim}
        super().__init__(Trunk(layers, config.hidden_dim, architecture))


class FlatDecoder(Decoder):
    @dataclass
    class Config(Decoder.Config):
        name: str = "my_decoder"

    def __init__(self, config, latent_dim, param_shape):
        size = torch.Size(param_shape).numel()
        super().__init__([nn.Linear(latent_dim, size), nn.Unflatten(1, param_shape)])


class MarginLoss(AdversarialLoss):
    @dataclass
    class Config(AdversarialLoss.Config):
        name: str = "my_loss"
        margin: float = 1.0

    def discriminator(self, real, fake):
        return (self.config.margin - real).relu() + (self.config.margin + fake).relu()

    def generator(self, fake, real):
        return -fake


class LogitPenalty(GradientPenalty):
    @dataclass
    class Config(GradientPenalty.Config):
        name: str = "my_penalty"
        strength: float = 0.1

    def weight(self, step, progress):
        return self.config.strength

    def __call__(self, discriminator, real, fake):
        return discriminator(real).square()


class Shift(Augmentation):
    @dataclass
    class Config(Augmentation.Config):
        name: str = "my_augmentation"
        pixels: int = 1

    def forward(self, images, probability):
        return images.roll(self.config.pixels, -1)


class MeanPixels(FeatureExtractor):
    @dataclass
    class Config(FeatureExtractor.Config):
        name: str = "my_features"

    def __init__(self, config, vae, classifier):
        super().__init__()

    @property
    def num_features(self):
        return 4

    def forward(self, images):
        return images.unflatten(-1, (4, -1)).mean((1, 2, 4))

    def classify(self, features):
        return None


@sample_score(Metric("my_gap", "Gap of the means.", "min", "gray levels", is_sweep_metric=True))
def my_gap(real, fake):
    return float((real.features.mean() - fake.features.mean()).abs())


class Stripes(ImageSource):
    @dataclass
    class Config(ImageSource.Config):
        name: str = "my_data"
        num_train: int = 128

    def __init__(self, config):
        self.config = config

    @property
    def image_shape(self):
        return (1, 8, 8)

    def split(self, name):
        num = self.config.num_train if name == "train" else 32
        rows = torch.arange(num * 64).reshape(num, 1, 8, 8) * 7 % 256
        return Split(rows.byte(), torch.zeros(num, dtype=torch.long))


class CountBatches(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        print("my_callback saw", trainer.fit_loop.total_batch_idx + 1, "batches")


CALLBACKS["my_callback"] = f"{__name__}:CountBatches"


@dataclass
class DescribeRun(RunConfig):
    ckpt: str = ""
    words: list[str] = field(default_factory=list)  # words to print


def describe(run, output_dir: Path):
    checkpoint = load_vae_checkpoint(run.ckpt, "ckpt")
    print("my_stage loads", type(checkpoint.build_vae().likelihood).__name__, *run.words)


STAGES["my_stage"] = Stage(DescribeRun, f"{__name__}:describe")
'''
CHOICES = {
    "likelihood": "my_student_t",
    "prior": "my_prior",
    "posterior": "my_posterior",
    "objective": "my_objective",
    "encoder": "my_encoder",
    "decoder": "my_decoder",
    "discriminator": "my_discriminator",
    "adversarial_loss": "my_loss",
    "gradient_penalty": "my_penalty",
    "augmentation": "my_augmentation",
    "feature_extractor": "my_features",
    "dataset": "my_data",
}
SMALL = ["latent_dim=4", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
SMALL += [f"{stage}.trainer.max_epochs=1" for stage in ("vae", "gan")]
SMALL += [f"{stage}.loader.batch_size=32" for stage in ("vae", "gan")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the file of the plugin."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_plugin.py").write_text(PLUGIN)
    return folder


def forget_plugin(folder):
    """Remove the plugin from the registries, sys.modules and sys.path."""
    sys.modules.pop("my_plugin", None)
    for base in GROUPS.values():
        for name in [name for name in base.choices if name.startswith("my_")]:
            del base.choices[name]
    for table in (STAGES, CALLBACKS, METRICS, SAMPLE_SCORES):
        for name in [name for name in table if name.startswith("my_")]:
            del table[name]
    while str(folder) in sys.path:
        sys.path.remove(str(folder))


def train(folder, *words):
    """Run train.py in the folder of the plugin; return the exit status and the output."""
    printed = io.StringIO()
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *words])
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                main()
                status = 0
            except SystemExit as error:
                is_status = isinstance(error.code, int) or error.code is None
                status = error.code if is_status else 1
                print(error.code)
            finally:
                forget_plugin(folder)
    return status or 0, printed.getvalue()


@pytest.fixture(scope="module")
def run_folder(folder):
    """Return the folder of a finished pipeline in which every component is from the plugin."""
    choices = [f"{group}={name}" for group, name in CHOICES.items()]
    words = ["plugins=[my_plugin]", *choices, *SMALL, "callbacks=[my_callback]", "seed=3"]
    status, output = train(folder, *words, "hydra.run.dir=run")
    assert status == 0, output
    assert output.count("my_callback saw 4 batches") == 2
    return folder / "run"


def test_pipeline_runs_with_plugins_for_all_components(run_folder):
    config = json.loads((run_folder / "config.json").read_text())["config"]
    assert {group: config[group]["name"] for group in CHOICES} == CHOICES
    result = json.loads((run_folder / "gan" / "result.json").read_text())
    assert {"val/combined_distance", "test/my_gap"} <= result["metrics"].keys()


def test_help_lists_the_names_of_a_plugin(folder):
    status, output = train(folder, "plugins=[my_plugin]", "--help")
    assert status == 0
    for name in (*CHOICES.values(), "my_stage", "words=[]", "my_gap", "my_callback"):
        assert name in output, name
    status, output = train(folder, "plugins=[my_plugin]", "--help", "my_student_t")
    assert status == 0 and "likelihood.degrees=5.0" in output


def test_evaluation_loads_a_checkpoint_with_plugins(folder, run_folder):
    words = ["stage=evaluate", "num_samples=10", *SMALL[1:3]]
    for stage, figure in (("vae", "test/nll"), ("gan", "test/my_gap")):
        words[2:] = [f"ckpt={run_folder}/{stage}", f"hydra.run.dir=evaluation_{stage}"]
        words += ["trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
        status, output = train(folder, "plugins=[my_plugin]", *words)
        assert status == 0 and figure in output, output


def test_stage_from_a_plugin_runs(folder, run_folder):
    words = ["plugins=[my_plugin]", "stage=my_stage", f"ckpt={run_folder}", "words=[it,works]"]
    status, output = train(folder, *words)
    assert status == 0 and "my_stage loads StudentT it works" in output, output


def test_sweep_over_plugins_returns_a_plugin_metric(folder):
    experiment = folder / "conf" / "experiment"
    experiment.mkdir(parents=True)
    text = """
    # @package _global_
    defaults:
      - override /stage: pipeline
      - override /dataset: my_data
      - override /feature_extractor: my_features
    plugins: [my_plugin]
    sweep_metric: test/my_gap
    """
    (experiment / "mine.yaml").write_text(textwrap.dedent(text).lstrip())
    words = ["-m", "--config-dir", "conf", "experiment=mine", "encoder=mlp", "decoder=mlp"]
    words += ["discriminator=mlp", "likelihood=my_student_t,gaussian", "hydra.sweep.dir=sweep"]
    status, output = train(folder, *words, *SMALL)
    assert status == 0 and "test/my_gap" in output, output
    outcome = json.loads((folder / "sweep" / "0" / "outcome.json").read_text())
    assert outcome["metric"] == "test/my_gap" and outcome["status"] == "finished"


def test_plugins_named_in_a_checkpoint_or_run_folder_are_not_imported(folder, run_folder):
    for words in (["stage=evaluate", f"ckpt={run_folder}"], [f"resume={run_folder}"]):
        status, output = train(folder, *words)
        assert status == 1
        assert "unknown" in output and "plugins=[MODULE]" in output, output
    status, output = train(folder, "plugins=[my_plugin]", f"resume={run_folder}")
    assert status == 0 and "already finished" in output, output


@pytest.mark.parametrize(
    "word, message",
    [
        ("plugins=[no_such_module]", "the module no_such_module cannot be imported"),
        ("plugins=[../evil]", "plugins must be names of Python modules; got '../evil'"),
    ],
)
def test_invalid_plugin_is_rejected(folder, word, message):
    status, output = train(folder, word, "--help")
    assert status == 1 and message in output
