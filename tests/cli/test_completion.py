"""Tab completion for bash."""

import shutil
import subprocess
import sys

import pytest

from tests.conftest import CONF, TRAIN, read_settings
from vaegan.cli.completion import complete


@pytest.fixture
def candidates(tmp_path, monkeypatch):
    """Return a function that completes a command line in a folder with files."""
    monkeypatch.setattr(
        "vaegan.cli.completion.settings_with_plugins", lambda *args: read_settings()
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "vae").mkdir(parents=True)
    (tmp_path / "cat.png").touch()
    (tmp_path / ".hidden").touch()

    def find(line):
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        return complete(["-sc", "query=bash"], CONF).splitlines()

    return find


@pytest.mark.parametrize(
    "line, expected",
    [
        ("python train.py likelihood=ga", ["likelihood=gaussian"]),
        ("uv run train.py stage=s", ["stage=sample"]),
        ("vaegan experiment=smo", ["experiment=smoke"]),
        ("vaegan vae.trainer.max_", ["vae.trainer.max_epochs=", "vae.trainer.max_images="]),
        ("vaegan stage=vae trainer.max_e", ["trainer.max_epochs="]),
        ("vaegan stage=sample traversal=", ["traversal=false", "traversal=true"]),
        ("vaegan prior=gaussian_mixture prior.num", ["prior.num_components="]),
        ("vaegan stage=sample ckpt=", ["ckpt=cat.png", "ckpt=last", "ckpt=outputs/"]),
        ("vaegan stage=sample ckpt=outputs/", ["ckpt=outputs/vae/"]),
        ("vaegan stage=encode images=c", ["images=cat.png"]),
        ("vaegan --ver", ["--version"]),
        ("vaegan likelihood=nothing", []),
    ],
)
def test_keys_choices_and_paths_are_completed(candidates, line, expected):
    assert candidates(line) == expected


def test_experiments_of_a_config_folder_are_completed(candidates, tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "birds.yaml").write_text("# Birds\n")
    assert candidates("vaegan --config-dir mine experiment=b")[0] == "experiment=birds"


def test_paths_with_brackets_are_completed(candidates, tmp_path):
    (tmp_path / "[a].png").touch()
    assert candidates("vaegan stage=encode images=[a]") == ["images=[a].png"]


def test_other_shells_are_refused():
    with pytest.raises(ValueError, match="tab completion supports only bash: -sc install=bash"):
        complete(["-sc", "install=fish"], CONF)


def test_the_script_completes_the_part_after_the_equals_sign(tmp_path):
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    command = [sys.executable, TRAIN, "-sc", "install=bash"]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = ["COMP_LINE='uv run train.py likelihood=ga'", "COMP_POINT=${#COMP_LINE}"]
    lines += ["_vaegan_complete", 'echo "${COMPREPLY[@]}"']
    ended = subprocess.run(["bash", "-c", "\n".join([script, *lines])], capture_output=True)
    assert ended.stdout.decode().strip() == "gaussian", ended.stderr
