import subprocess
import sys

import pytest

from tests.conftest import TRAIN, register_once
from vaegan.cli.settings import Settings
from vaegan.cli.spelling import check_spelling
from vaegan.cli.suggestions import known_keys
from vaegan.stages.stage_table import STAGES

SETTINGS = Settings()


@pytest.mark.parametrize("stage", STAGES)
def test_source_files_and_registry_give_the_same_keys(stage):
    register_once()
    assert sorted(SETTINGS.keys(stage)) == sorted(known_keys(stage))


def test_misspelled_settings_are_answered_without_torch():
    code = (
        "import sys; from vaegan.cli.main import run_command\n"
        "for word in ('optimizer.lrr=1', 'stage=vaee', 'decoder=resnett'):\n"
        "    try: run_command([word])\n"
        "    except SystemExit as error: print(error.code)\n"
        "print({'torch', 'lightning', 'hydra'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=TRAIN.parent)
    *messages, modules = ended.stdout.splitlines()
    assert len(messages) == 3 and modules == "set()", ended.stderr
    for message, suggestion in zip(messages, ("optimizer.lr?", "vae?", "resnet?"), strict=True):
        assert suggestion in message


@pytest.mark.parametrize(
    "words",
    [
        ["stage=vae", "optimizer.lr=1", "prior=flow", "likelihood=null"],
        ["dataset=my_folder"],
        ["plugins=[my_module]", "likelihood=student_t"],
        ["experiment=smoke", "foo=1"],
        ["resume=outputs/run", "foo=1"],
        ["-m", "seed=0,1", "foo=1"],
        ["+foo=1", "bar"],
        ["hydra.run.dir=runs", "hydra/launcher=joblib"],
    ],
    ids=str,
)
def test_other_commands_are_left_to_hydra(words):
    check_spelling(words)
