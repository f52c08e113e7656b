"""Loading executes nothing; names in data reach no shell, terminal or other folder."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_GAN, compose
from tests.image_files import fill
from tests.runtime.test_safe_load import Call
from vaegan.cli.errors import escape
from vaegan.stages.stage_table import run_stage

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "train.py", *sorted((ROOT / "vaegan").rglob("*.py"))]
EXECUTING = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "importlib.import_module",
        "runpy.run_path",
        "runpy.run_module",
    ),
    *(
        "os.system",
        "os.popen",
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "marshal.loads",
        "shelve.open",
    ),
    *(
        "subprocess.run",
        "subprocess.call",
        "subprocess.Popen",
        "subprocess.check_output",
        "subprocess.check_call",
    ),
    *(
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "joblib.load",
        "torch.jit.load",
        "torch.hub.load",
    ),
    *(
        "hydra.utils.instantiate",
        "instantiate",
        "hydra.utils.get_class",
        "hydra.utils.get_method",
        "tempfile.mktemp",
    ),
}


TRUSTED_IMPORTS = {  # of modules that the command line, an experiment or the package itself names
    "vaegan/cli/plugins.py": ["importlib.import_module(name)"],
    "vaegan/stages/stage_table.py": ["importlib.import_module(module)"],
    "vaegan/training/callback_table.py": ["importlib.import_module(module)"],
}


def dangers(code):
    """What in a file's text may execute what it reads."""
    code = code.replace(
        'subprocess.run(["scontrol", "requeue", job], check=True)', ""
    )  # job is a checked number
    found = []
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        name, given = (
            ast.unparse(call.func),
            {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords},
        )
        loads = (
            name == "torch.load" or name.endswith(".load_from_checkpoint") or "ckpt_path" in given
        )
        unsafe = name in EXECUTING or (loads and given.get("weights_only") != "True")
        unsafe = (
            unsafe
            or given.get("shell", "False") != "False"
            or given.get("allow_pickle", "False") != "False"
        )
        found += [ast.unparse(call)] if unsafe else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_of_the_package_executes_what_it_reads(path):
    assert dangers(path.read_text()) == TRUSTED_IMPORTS.get(path.relative_to(ROOT).as_posix(), [])


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "trainer.fit(module, ckpt_path=path)",
        "VAE.load_from_checkpoint(path)",
        "pickle.loads(x)",
        "eval(x)",
        "numpy.load(x, allow_pickle=True)",
        "anything(x, shell=True)",
        "os.system(x)",
        "importlib.import_module(x)",
    ],
)
def test_what_would_be_dangerous_is_noticed(code):
    assert dangers(code) == [code]
    assert not dangers("net.eval(); torch.load(p, weights_only=True)")
    assert not dangers("trainer.test(m, ckpt_path=p, weights_only=True)")


@pytest.mark.parametrize("folder", ["", "checkpoints", "vae/checkpoints"])
@pytest.mark.parametrize(
    "command", [["stage=evaluate"], ["stage=export"], SMALL_GAN], ids=["evaluate", "export", "gan"]
)
def test_a_run_folder_with_a_malicious_checkpoint_executes_nothing(tmp_path, folder, command):
    place, marker = tmp_path / "run" / folder, tmp_path / "executed"
    place.mkdir(parents=True)
    torch.save({"vaegan": Call(os.system, f"touch {marker}")}, place / "best.ckpt")
    key = "vae_ckpt" if command is SMALL_GAN else "ckpt"
    with pytest.raises(
        ValueError,
        match=r"best.ckpt is refused: .*it names '\w+ system'.*Nothing in it was executed",
    ):
        run_stage(compose(*command, f"{key}={tmp_path / 'run'}"), tmp_path / "out")
    assert not marker.exists() and not list((tmp_path / "out").glob("[!.]*"))


def test_a_message_does_not_command_the_terminal():
    text = "a\x1b[31m\x07b\r\x9b\u202e\nc\td\udcff é ✓"
    assert escape(text) == "a\\x1b[31m\\x07b\\r\\x9b\\u202e\nc\td\\udcff é ✓"


@pytest.mark.slow
def test_names_of_images_reach_neither_shell_nor_terminal(tmp_path):
    """A whole run, as a user starts it, on images with malicious names."""
    folder, work = tmp_path / "pictures", tmp_path / "work"
    evil = [
        "$(touch executed)",
        "`touch executed`",
        "a;touch executed",
        "|touch executed",
        "new\nline",
        "\x1b[31mred\x07",
    ]
    evil += [
        "..\\..\\up",
        "-rf",
        "~",
        "%n%s",
        "[red]",
        "${oc.env:HOME}",
        "x" * 251,
        os.fsdecode(b"\xff\xfe"),
    ]
    for i, path in enumerate(fill(folder, 40)):
        path.rename(folder / f"{evil[i % len(evil)][:249]}{i:02}.png")
    for name in evil:
        (folder / f"{name[:251]}.jpg").write_bytes(b"no picture \x1b[31m")
    work.mkdir()
    words = [
        "stage=vae",
        "dataset=image_folder",
        f"dataset.root={folder}",
        "dataset.image_size=8",
        "hydra.run.dir=run",
    ]
    words += [
        "dataset.max_broken=1",
        "dataset.val_fraction=0.3",
        "dataset.test_fraction=0.3",
        "trainer.max_epochs=1",
    ]
    words += [
        "encoder=mlp",
        "decoder=mlp",
        "latent_dim=2",
        "loader.batch_size=8",
        "trainer.enable_progress_bar=false",
    ]
    words += ["trainer.accelerator=cpu", f"dataset.cache={tmp_path / 'cache'}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=work, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"14 files are skipped" in done.stdout + done.stderr
    assert b"\x1b" not in (work / "run" / "train.log").read_bytes() + done.stdout + done.stderr
    assert {path.name for path in work.iterdir()} == {"run"}
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "work", "cache"}
    assert not list(tmp_path.rglob("executed"))
    text = (work / "run" / "vae" / "skipped_files.json").read_text()
    assert text.isascii() and "\x1b" not in text
    assert set(json.loads(text)) == {f"{name[:251]}.jpg" for name in evil}
