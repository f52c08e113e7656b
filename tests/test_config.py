"""Tests of `vaegan.config`: components, plain configs, and error messages."""

from dataclasses import dataclass, field, fields
from enum import Enum

import pytest
from omegaconf import MISSING, OmegaConf

from tests.conftest import compose
from vaegan.config import (
    GROUPS,
    Component,
    ComponentConfig,
    did_you_mean,
    from_plain,
    require,
    to_plain,
)
from vaegan.data.mnist import Mnist
from vaegan.gan.losses import AdversarialLoss
from vaegan.probability.likelihoods.likelihood import Likelihood
from vaegan.probability.likelihoods.location_scale import Gaussian
from vaegan.probability.priors import VampPrior
from vaegan.stages.pack import PackRun
from vaegan.vae.model import VAEConfig

CHOICES = [(group, name) for group, base in GROUPS.items() for name in base.choices]


@dataclass
class Inner:
    size: int = 3

    def __post_init__(self):
        require(self.size > 0, "size", "positive", self.size)


@dataclass
class Outer:
    likelihood: Likelihood.Config = MISSING
    inner: Inner = field(default_factory=Inner)
    optional: Likelihood.Config | None = None


def outer(**values):
    """Return a plain `Outer` config."""
    return {"likelihood": {"name": "gaussian", "scale": 0.1}, **values}


@pytest.mark.parametrize("group, name", CHOICES)
def test_every_choice_has_an_invertible_plain_form(group, name):
    schema = GROUPS[group].choices[name].Config
    config = schema(**{field.name: "given" for field in fields(schema) if field.default == MISSING})
    plain = to_plain(config)
    restored = from_plain(GROUPS[group].Config, plain)
    assert restored == config and type(restored) is type(config)
    assert plain["name"] == name


class Mode(Enum):
    FAST = 1


@dataclass
class AllTypes:
    mode: Mode = Mode.FAST
    sizes: tuple[int, int] = (1, 2)
    weights: dict[str, float] = field(default_factory=lambda: {"a": 0.5})
    parts: list[Inner] = field(default_factory=lambda: [Inner(4)])
    optional: Inner | None = None


@pytest.mark.parametrize("config", [AllTypes(), AllTypes(optional=Inner(5))])
def test_the_plain_form_is_that_of_omegaconf(config):
    expected = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert to_plain(config) == expected
    assert type(to_plain(config)["sizes"]) is list


def test_nested_components_are_selected_by_name():
    config = from_plain(Outer, outer(inner={"size": 5}, optional={"name": "bernoulli"}))
    assert config.likelihood == Gaussian.Config(scale=0.1)
    assert config.inner.size == 5
    assert config.optional.name == "bernoulli"


@pytest.mark.parametrize(
    "plain, message",
    [
        (outer(inner={"size": 0}), r"^inner\.size must be positive; got 0"),
        (outer(inner={"siz": 1}), r"unknown key inner\.siz\. Did you mean size\?"),
        (
            outer(likelihood={"name": "gausian"}),
            "likelihood: unknown likelihood 'gausian'; known: .*gaussian",
        ),
        (outer(likelihood={"name": "os.system"}), "unknown likelihood"),
        (
            outer(likelihood={"name": "gaussian", "scale": -1.0}),
            r"^likelihood\.scale must be a positive .* got -1\.0",
        ),
        (outer(likelihood="???"), "likelihood must be set"),
        (outer(inner={"size": "many"}), r"^inner\..*str"),
        (outer(inner={"size": 10**20}), r"^inner\.size must be an integer of at most 64 bits"),
        (
            outer(likelihood={"name": "gaussian", "scale": float("inf")}),
            r"^likelihood\.scale must be finite; got inf",
        ),
    ],
)
def test_invalid_plain_config_is_rejected_with_the_full_key(plain, message):
    with pytest.raises(ValueError, match=message):
        from_plain(Outer, plain)


def test_name_of_a_choice_cannot_be_changed():
    with pytest.raises(ValueError, match="write likelihood=bernoulli"):
        Gaussian.Config(name="bernoulli")


def test_a_class_that_is_declared_again_replaces_the_first():
    class Shade(Component, group="shade"):
        @dataclass
        class Config(ComponentConfig): ...

    def declare():  # as a notebook cell that runs twice
        class Dark(Shade):
            @dataclass
            class Config(Shade.Config):
                name: str = "dark"

        return Dark

    try:
        declare()
        again = declare()
        assert Shade.choices == {"dark": again}
    finally:
        del GROUPS["shade"]


def test_two_choices_with_the_same_name_are_rejected():
    class Color(Component, group="color"):
        @dataclass
        class Config(ComponentConfig): ...

    class Red(Color):
        @dataclass
        class Config(Color.Config):
            name: str = "red"

    try:
        with pytest.raises(ValueError, match="two classes are registered as color=red"):

            class AlsoRed(Color):
                @dataclass
                class Config(Color.Config):
                    name: str = "red"
    finally:
        del GROUPS["color"]
    assert Color.choices == {"red": Red}


def test_did_you_mean_suggests_the_nearest_word():
    assert did_you_mean("gausian", ["bernoulli", "gaussian"]) == " Did you mean gaussian?"
    assert did_you_mean("xyz", ["bernoulli", "gaussian"]) == ""


@pytest.mark.parametrize(
    "root",
    [
        "${oc.env:HOME}",
        "x/${oc.env:HOME}",
        "${name}",
        ["${name}"],
        {"a": "${name}"},
        {3: 4},
        b"x",
        (1,),
        ...,
    ],
)
def test_interpolation_in_a_plain_config_is_rejected(root):
    """OmegaConf would replace it, for example by an environment variable."""
    with pytest.raises(ValueError, match=r"dataset.root must be plain data, without \$\{...\}"):
        from_plain(Mnist.Config, {"name": "mnist", "root": root}, "dataset")


@pytest.mark.parametrize("plain", ["mnist", ["mnist"], 3, [("name", "mnist")]])
def test_component_that_is_not_a_mapping_is_rejected(plain):
    with pytest.raises(ValueError, match="dataset must be a mapping of settings"):
        from_plain(Mnist.Config, plain, "dataset")


def test_only_configs_that_may_be_null_are():
    run = compose("stage=gan", "vae_ckpt=none")
    plain = to_plain(run) | {"augmentation": None}
    assert from_plain(type(run), plain).augmentation is None
    with pytest.raises(ValueError, match="^trainer must be a mapping of settings; got 'NoneType'"):
        from_plain(type(run), plain | {"trainer": None})


def test_defaults_of_nested_configs_are_checked():
    with pytest.raises(ValueError, match="dataset.root must be set"):
        from_plain(PackRun, {"output": "packed"})


def test_values_of_nested_configs_are_converted_to_their_types():
    run = compose("stage=gan", "vae_ckpt=none")
    plain = to_plain(run)
    plain["generator_optimizer"]["beta2"] = 0
    plain["warm_start"]["bandwidth"] = 1
    again = from_plain(type(run), plain)
    assert isinstance(again.generator_optimizer.beta2, float)
    assert isinstance(again.warm_start.bandwidth, float)
    plain["trainer"]["max_epochs"] = 1.5
    with pytest.raises(ValueError, match=r"(?s)trainer.*1.5.*max_epochs"):
        from_plain(type(run), plain)


def test_missing_keys_get_their_defaults():
    config = from_plain(VAEConfig, {"latent_dim": 2, "prior": {"name": "vamp_prior"}})
    assert config == VAEConfig(latent_dim=2, prior=VampPrior.Config())


def test_component_is_built_with_its_config():
    """A choice can add settings to a group whose other choices have none."""

    class Margin(AdversarialLoss):
        @dataclass
        class Config(AdversarialLoss.Config):
            name: str = "margin"
            size: float = 1.0

        def discriminator(self, real, fake):
            return fake - real + self.config.size

        def generator(self, fake, real):
            return -fake

    try:
        assert Margin.Config(size=3.0).build().discriminator(1.0, 2.0) == 4.0
    finally:
        del AdversarialLoss.choices["margin"]


def test_dollar_signs_without_interpolation_are_kept():
    root = "$(x) $HOME {a}"
    assert from_plain(Mnist.Config, {"name": "mnist", "root": root}, "dataset").root == root


@pytest.mark.parametrize("stage", [["stage=gan", "vae_ckpt=x"], ["stage=pipeline"]])
def test_sweep_metric_of_a_gan_is_resolved_from_the_data(stage):
    assert compose(*stage, "sweep_metric=").sweep_metric == ""
    for tag in ("val/frechet_distance", "val/combined_distance", "val/kernel_distance"):
        assert compose(*stage, f"sweep_metric={tag}").sweep_metric == tag
