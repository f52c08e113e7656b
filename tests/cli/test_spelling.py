"""Misspelled keys and choices are answered without torch, and what Hydra accepts is accepted."""

import subprocess
import sys
from itertools import chain, zip_longest

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from tests.conftest import CONF, TRAIN, read_settings, register_once
from vaegan.cli import spelling
from vaegan.cli.hydra_errors import key_owners
from vaegan.cli.registration import component_fields
from vaegan.cli.spelling import check_spelling
from vaegan.config import GROUPS, flatten
from vaegan.runtime.program import with_program_name
from vaegan.stages.stage_table import STAGES

SETTINGS = read_settings()
MISSPELLED = [
    "likelyhood=laplace",
    "likelihood=laplas",
    "dataset=fashion-mnist",
    "stage=vaee",
    "stage=Train",
    "experiment=smok",
    "epochs=10",
    "stage=vae trainer.max_imagse=1000",
    "stage=vae optimizer.lrr=1e-3 hydra.run.dir=runs/a",
    "prior=flow prior.num_layer=3",
    "likelihood=gaussian likelihood.scael=0.1",
    "encoder.widht=16 decoder=resnett",
    "stage=evaluate ckpt=run num_sample=3",
]
LEFT_TO_HYDRA = [
    "plugins=[student_t] likelihood=student_t",
    "plugins=student_t likelihood=student_t",
    "experiment=smoke latent_dimm=3",
    "resume=outputs/run latent_dimm=3",
    "-m seed=0,1 latent_dimm=3",
    "hydra.mode=MULTIRUN latent_dimm=3",
    "--config-dir conf dataset=mine",
    "+latent_dimm=3",
    "~prior latent_dimm=3",
    "latent_dimm=[3]",
    "stage=vae stage=vaee",
    "dataset=/my/folder",
    "likelihood=null",
    "hydra.job.name=mine",
    "hydra/launcher=mine",
    "callbacks.0=timer",
    "likelihood.scael=1",
    "trainer=gpu",
    "vaee",
]


@pytest.fixture(autouse=True)
def complete_check(monkeypatch):
    """Check all commands against all settings, also those without a new name."""
    monkeypatch.setattr(spelling, "Settings", lambda: SETTINGS)
    monkeypatch.setattr(spelling, "has_new_name", lambda given: True)


def check_keys_of_hydra(keys, **given):
    """Check a command that sets all keys, and that the check has not been skipped."""
    keys = [key for key in keys if key not in spelling.LEFT_TO_HYDRA]
    words = [f"{key}={value}" for key, value in (dict.fromkeys(keys, "1") | given).items()]
    check_spelling(words, CONF)
    with pytest.raises(ValueError, match="unknown key latent_dimm"):
        check_spelling([*words, "latent_dimm=1"], CONF)


@pytest.mark.parametrize("stage", STAGES)
def test_source_files_and_dataclasses_have_the_same_keys(stage):
    found = SETTINGS.key_owners(SETTINGS.stages[stage].config)
    assert list(found.items()) == list(key_owners(STAGES[stage].config).items())


@pytest.mark.parametrize("stage", STAGES)
def test_keys_that_hydra_composes_are_accepted_with_all_choices(stage):
    register_once()
    GlobalHydra.instance().clear()
    groups = [group for group, _ in component_fields(STAGES[stage].config).values()]
    choices = [[f"{group}={name}" for name in GROUPS[group].choices] for group in groups]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        for row in zip_longest(*choices) if choices else [()]:
            selected = dict(word.split("=") for word in filter(None, row))
            words = [f"{group}={name}" for group, name in selected.items()]
            config = hydra.compose("config", [f"stage={stage}", *words])
            plain = OmegaConf.to_container(config)
            keys = chain(plain, flatten(plain))
            check_keys_of_hydra(keys, stage=stage, **selected)


@pytest.mark.parametrize(
    "path", [*CONF.glob("experiment/*"), *CONF.glob("arm/*")], ids=lambda path: path.stem
)
def test_keys_of_the_files_in_conf_are_accepted(path):
    content = yaml.safe_load(path.read_text())
    swept = content.pop("hydra", {}).get("sweeper", {}).get("params", {})
    content.pop("defaults", None)
    content.pop("plugins", None)
    check_keys_of_hydra([*flatten(content), *(key for key in swept if key != "arm")])


@pytest.mark.parametrize("command", MISSPELLED)
def test_the_answer_is_that_of_hydra(train, tmp_path, command):
    with pytest.raises(ValueError) as quick:
        check_spelling(command.split(), CONF)
    exit_code, _, _ = train(*command.split())  # torch is imported: Hydra composes the command
    assert exit_code.splitlines()[0] == with_program_name(f"error: {quick.value}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", LEFT_TO_HYDRA)
def test_other_commands_are_left_to_hydra(command):
    check_spelling(command.split(), CONF)


def test_groups_with_files_in_conf_are_left_to_hydra(tmp_path):
    (tmp_path / "dataset").mkdir()
    check_spelling(["dataset=mine", "dataset.size=3"], tmp_path)


def test_misspelled_settings_are_answered_without_torch(tmp_path):
    code = (
        "import sys; from vaegan.cli.main import run_command\n"
        "for command in sys.argv[1:]:\n"
        "    try: run_command(command.split())\n"
        "    except SystemExit as error: print(error.code.splitlines()[0])\n"
        "print({'torch', 'lightning', 'hydra'} & sys.modules.keys())"
    )
    commands = ["likelihood=laplas", "stage=vae trainer.max_imagse=1000"]
    command = [sys.executable, "-c", code, *commands]
    environment = {"PYTHONPATH": str(TRAIN.parent)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    *messages, modules = ended.stdout.splitlines()
    assert modules == "set()", ended.stderr
    assert len(messages) == len(commands)
    assert all(message.startswith("error: ") for message in messages)
    assert not list(tmp_path.iterdir())
