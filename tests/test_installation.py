"""The wheel: an installation without the checkout runs in any folder, offline."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from vaegan import __version__

ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
ROOT = Path(__file__).parents[1]
SHORT = [f"{stage}.trainer.max_epochs=1" for stage in ("vae", "gan")]
SHORT += ["dataset.num_train=128", "dataset.num_val=64", "dataset.num_test=64"]
SHORT += [f"{network}.width=4" for network in ("encoder", "decoder", "discriminator")]
SHORT += ["gan.discriminator_warmup=0", "gan.trainer.val_check_interval=1.0", "latent_dim=4"]
SHORT += ["feature_extractor=vae_encoder", "trainer.accelerator=cpu"]


def call(*command, cwd):
    """Run a command and return what it printed."""
    words = list(map(str, command))
    ended = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=ENVIRONMENT)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def build_wheel(folder):
    """Build the wheel without a network; skip the test if there is no build tool."""
    command = ["uv", "build", "--wheel", "--offline", "--out-dir", folder, ROOT]
    if importlib.util.find_spec("hatchling"):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    elif not shutil.which("uv"):
        pytest.skip("building the wheel needs hatchling or uv")
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if "offline" in ended.stderr:
        pytest.skip("building the wheel with uv needs a cached hatchling")
    assert ended.returncode == 0, ended.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the wheel, next to the libraries of this environment; return the folder of scripts.

    The wheel is unpacked and its script written as pip would, because pip may be missing here.
    """
    folder = tmp_path_factory.mktemp("installed")
    wheel = build_wheel(folder / "dist")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    (libraries,) = (folder / "env").glob("lib/python*/site-packages")
    shutil.unpack_archive(wheel, libraries, "zip")
    (libraries / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (script,) = (libraries / f"vaegan-{__version__}.dist-info").glob("entry_points.txt")
    assert "vaegan = vaegan.cli.main:main" in script.read_text()
    command = folder / "env" / "bin" / "vaegan"
    command.write_text(f"#!{python}\nfrom vaegan.cli.main import main\nmain()\n")
    command.chmod(0o755)
    return command.parent


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_folder(installed, tmp_path):
    out = call(installed / "vaegan", "experiment=smoke", *SHORT, cwd=tmp_path)
    assert "vaegan stage=evaluate ckpt=outputs/pipeline/" in out and "train.py" not in out
    code = "import vaegan; print(vaegan.__file__); "
    code += "vaegan.run('stage=sample', 'ckpt=last', 'num_images=4'); "
    code += "print(vaegan.load('last').sample(4).shape)"
    out = call(installed / "python", "-c", code, cwd=tmp_path)
    assert out.startswith(str(installed.parent)) and "torch.Size([4, 1, 28, 28])" in out
    assert len(list(tmp_path.glob("outputs/pipeline/*/sample/*/sample/00000[0-3].png"))) == 4
