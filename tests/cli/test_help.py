"""`--help` and docs/settings.md: what the source files say is what the dataclasses have."""

import dataclasses
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from tests.conftest import CONF, TRAIN, compose, read_settings
from vaegan.cli.help import help_text, markdown_page
from vaegan.cli.hydra_errors import key_owners
from vaegan.config import GROUPS, to_plain
from vaegan.runtime.program import with_program_name
from vaegan.stages.stage_table import STAGES
from vaegan.training.callback_table import CALLBACKS

SETTINGS = read_settings()
STAGE_WORDS = {
    "gan": ["vae_ckpt=x"],
    "evaluate": ["ckpt=x"],
    "sample": ["ckpt=x"],
    "encode": ["ckpt=x", "images=x"],
    "export": ["ckpt=x"],
    "compare": ["runs=[x]"],
    "pack": ["output=x", "dataset.root=x"],
}


def as_text(value):
    """Return a default as the help writes it."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value).removeprefix(f"{Path.cwd()}/")  # configs make paths absolute
    return {None: "null", "": "''", "???": "(required)"}.get(value, text)


def help_keys(stage):
    """Return all keys of a stage, those of its components without their settings."""
    keys = {}
    for section in SETTINGS.sections:
        for name, prefix in section.uses:
            if name == stage:
                keys |= {prefix + one.key: one.default for one in section.settings}
    return keys


@pytest.mark.parametrize("group", GROUPS)
def test_choices_and_their_defaults_are_those_of_the_dataclasses(group):
    choices = {choice.name: choice for choice in SETTINGS.groups[group].choices}
    assert choices.keys() == GROUPS[group].choices.keys()
    for name, component in GROUPS[group].choices.items():
        expected = {f"{group}.{key}": as_text(v) for key, v in to_plain(component.Config()).items()}
        del expected[f"{group}.name"]
        assert {one.key: one.default for one in choices[name].settings} == expected


@pytest.mark.parametrize("stage", STAGES)
def test_the_keys_of_a_stage_are_those_of_its_config(stage):
    expected = {key for key, owner in key_owners(STAGES[stage].config).items() if not owner}
    hints = typing.get_type_hints(STAGES[stage].config)
    nested = {key.rpartition(".")[0] for key in expected if "." in key}
    assert help_keys(stage).keys() == expected - nested
    assert hints.keys() >= {key.partition(".")[0] for key in expected}


@pytest.mark.parametrize("stage", ["vae", "pipeline"])
def test_the_defaults_of_a_stage_are_those_of_its_config(stage):
    config = STAGES[stage].config()
    for key, default in help_keys(stage).items():
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        value = value.name if dataclasses.is_dataclass(value) else value
        assert default == as_text(value), key


def test_every_setting_and_every_choice_is_described():
    for section in SETTINGS.sections:
        for one in section.settings:
            assert one.description, one.key
    for group in SETTINGS.groups.values():
        for choice in group.choices:
            assert choice.summary, f"{group.name}={choice.name}"
            for one in choice.settings:
                assert one.description, f"{one.key} of {choice.name}"


def test_every_stage_experiment_choice_and_callback_is_listed():
    text = help_text(SETTINGS, CONF, [])
    for name in (*STAGES, *CALLBACKS, *(path.stem for path in CONF.glob("experiment/*.yaml"))):
        assert f"\n  {name} " in text, name
    for group, base in GROUPS.items():
        assert f"\n{group}=CHOICE: " in text
        for name in base.choices:
            assert f"\n  {name}" in text, name
    assert max(map(len, text.splitlines())) <= 100


def test_the_settings_page_is_up_to_date():
    """Otherwise: python scripts/write_settings_page.py"""
    assert (TRAIN.parent / "docs" / "settings.md").read_text() == markdown_page(SETTINGS, CONF)


def test_the_settings_page_has_the_descriptions_of_the_help():
    page = markdown_page(SETTINGS, CONF).replace("\\|", "|")
    for section in SETTINGS.sections:
        for one in section.settings:
            assert f"| `{one.key}` | `{one.default}` | {one.description} |" in page


def test_the_help_of_a_stage_has_only_its_keys(train, monkeypatch):
    monkeypatch.setattr("vaegan.cli.help.Settings", read_settings)
    _, out, _ = train("stage=gan", "--help")
    assert "discriminator_warmup=null" in out and "num_samples" not in out
    _, out, _ = train("--help", "stage=pipeline")
    assert "gan.discriminator_warmup=null" in out and "vae.optimizer.lr=null" in out


def test_the_help_of_a_word_shows_matching_settings(train, monkeypatch):
    monkeypatch.setattr("vaegan.cli.help.Settings", read_settings)
    _, out, _ = train("--help", "free_bits")
    assert "objective.free_bits=0.0" in out and len(out.splitlines()) < 10
    ended, _, _ = train("--help", "nonsense")
    assert "no setting or component mentions 'nonsense'" in str(ended)
    _, out, _ = train("--help", "Collapsing")  # in a description
    assert "prior.min_scale" in out
    ended, _, _ = train("--help", "stage=nonsense")
    assert "known stages are vae, gan" in str(ended)


def test_help_and_version_import_no_torch():
    code = (
        "import sys; sys.argv = ['train.py', sys.argv[1]]\n"
        "from vaegan.cli.main import main; main()\n"
        "print({'torch', 'lightning', 'hydra'} & sys.modules.keys())"
    )
    for option, expected in (("--help", "Stages: "), ("--version", "vaegan 0.")):
        command = [sys.executable, "-c", code, option]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=TRAIN.parent)
        assert expected in ended.stdout and ended.stdout.endswith("set()\n"), ended.stderr


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} {TRAIN} --help | head -n 1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ended.stdout.startswith("Train a VAE") and ended.stderr == ""


def test_a_composed_config_has_the_keys_of_the_help():
    for stage in STAGES:
        flat = to_plain(compose(f"stage={stage}", *STAGE_WORDS.get(stage, [])))
        assert {key.partition(".")[0] for key in help_keys(stage)} == flat.keys()


@pytest.mark.parametrize("options", [["-m"], ["--config-dir", "conf/"], ["-cd=conf"]])
def test_options_are_no_words_to_search_for(options):
    text = help_text(SETTINGS, CONF, [*options, "stage=vae"])
    assert text.startswith("stage=vae: ")


@pytest.mark.parametrize("launcher", ["", "uv run "])
def test_commands_of_the_introduction_work_and_are_aligned(monkeypatch, launcher):
    monkeypatch.delenv("UV", raising=False)
    if launcher:
        monkeypatch.setenv("UV", "/bin/uv")
    monkeypatch.setattr(sys, "argv", [str(TRAIN)])
    lines = with_program_name(help_text(SETTINGS, CONF, [])).splitlines()
    commands = lines[2:10]
    assert commands[0].startswith(f"  {launcher}python train.py ")
    assert commands[-1].startswith(f"  {launcher}tensorboard --logdir ")
    aligned = [line for line in commands if "IMAGES" not in line]  # its column is not separated
    assert len({len(line) - len(re.split(" {2,}", line)[-1]) for line in aligned}) == 1
