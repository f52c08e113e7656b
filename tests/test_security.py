"""Security tests: loading a file never executes code, and file names are handled safely."""

import ast
import json
import os
from pathlib import Path

import pytest
import torch

from tests.conftest import SMALL_GAN, compose
from tests.faults import run_command_line
from tests.image_files import fill
from tests.runtime.test_safe_load import Call
from vaegan.cli.error_text import escape
from vaegan.stages.stage_table import run_stage

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "train.py", *sorted((ROOT / "vaegan").rglob("*.py"))]
# Calls that execute code or commands, or load data in an unsafe format.
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "importlib.import_module",
    "runpy.run_path",
    "runpy.run_module",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shelve.open",
    "subprocess.run",
    "subprocess.call",
    "subprocess.Popen",
    "subprocess.check_output",
    "subprocess.check_call",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "joblib.load",
    "torch.jit.load",
    "torch.hub.load",
    "hydra.utils.instantiate",
    "instantiate",
    "hydra.utils.get_class",
    "hydra.utils.get_method",
    "tempfile.mktemp",
}
# Imports of modules that the command line, an experiment or the package itself names.
TRUSTED_IMPORTS = {
    "vaegan/__init__.py": ["importlib.import_module(MODULES[name])"],
    "vaegan/cli/plugins.py": ["importlib.import_module(name)"],
    "vaegan/stages/stage_table.py": ["importlib.import_module(module)"],
    "vaegan/training/callback_table.py": ["importlib.import_module(module)"],
}


def find_unsafe_calls(code):
    """Return the calls in a source text that may execute code or commands from data."""
    # The job is a validated number.
    trusted = 'subprocess.run(["scontrol", "requeue", job], check=True, timeout=SECONDS_TO_REQUEUE)'
    code = code.replace(trusted, "")
    unsafe_calls = []
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        is_load = name == "torch.load" or name.endswith(".load_from_checkpoint")
        is_load = is_load or "ckpt_path" in keywords
        is_unsafe = (
            name in UNSAFE_CALLS
            or (is_load and keywords.get("weights_only") != "True")
            or keywords.get("shell", "False") != "False"
            or keywords.get("allow_pickle", "False") != "False"
        )
        if is_unsafe:
            unsafe_calls.append(ast.unparse(call))
    return unsafe_calls


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_package_has_no_unsafe_calls(path):
    trusted = TRUSTED_IMPORTS.get(path.relative_to(ROOT).as_posix(), [])
    assert find_unsafe_calls(path.read_text()) == trusted


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
def test_unsafe_calls_are_found(code):
    assert find_unsafe_calls(code) == [code]
    assert not find_unsafe_calls("net.eval(); torch.load(p, weights_only=True)")
    assert not find_unsafe_calls("trainer.test(m, ckpt_path=p, weights_only=True)")


@pytest.mark.parametrize("folder", ["", "checkpoints", "vae/checkpoints"])
@pytest.mark.parametrize(
    "command", [["stage=evaluate"], ["stage=export"], SMALL_GAN], ids=["evaluate", "export", "gan"]
)
def test_malicious_checkpoint_in_a_run_folder_is_not_executed(tmp_path, folder, command):
    checkpoint_folder = tmp_path / "run" / folder
    marker = tmp_path / "executed"
    checkpoint_folder.mkdir(parents=True)
    torch.save({"vaegan": Call(os.system, f"touch {marker}")}, checkpoint_folder / "best.ckpt")
    key = "vae_ckpt" if command is SMALL_GAN else "ckpt"
    with pytest.raises(
        ValueError,
        match=r"best.ckpt is refused: .*it references '\w+ system'.*Nothing in it was executed",
    ):
        run_stage(compose(*command, f"{key}={tmp_path / 'run'}"), tmp_path / "out")
    assert not marker.exists() and not list((tmp_path / "out").glob("[!.]*"))


def test_messages_contain_no_terminal_escape_sequences():
    text = "a\x1b[31m\x07b\r\x9b\u202e\nc\td\udcff é ✓"
    assert escape(text) == "a\\x1b[31m\\x07b\\r\\x9b\\u202e\nc\td\\udcff é ✓"


@pytest.mark.slow
def test_malicious_image_names_reach_neither_shell_nor_terminal(tmp_path):
    """Train from the command line on images with malicious names."""
    folder, work = tmp_path / "images", tmp_path / "work"
    malicious = [
        "$(touch executed)",
        "`touch executed`",
        "a;touch executed",
        "|touch executed",
        "new\nline",
        "\x1b[31mred\x07",
    ]
    malicious += [
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
        path.rename(folder / f"{malicious[i % len(malicious)][:249]}{i:02}.png")
    for name in malicious:
        (folder / f"{name[:251]}.jpg").write_bytes(b"no image \x1b[31m")
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
    run_command_line(tmp_path / "output", work, words)
    output = (tmp_path / "output").read_bytes()
    assert b"skipped files: 13" in output
    assert b"hidden files and folders: 4 (.png 3, .jpg 1)" in output
    assert b"\x1b" not in (work / "run" / "train.log").read_bytes() + output
    assert {path.name for path in work.iterdir()} == {"run"}
    assert {path.name for path in tmp_path.iterdir()} == {"images", "work", "cache", "output"}
    assert not list(tmp_path.rglob("executed"))
    text = (work / "run" / "vae" / "skipped_files.json").read_text()
    assert text.isascii() and "\x1b" not in text
    visible = [name for name in malicious if not name.startswith(".")]
    assert set(json.loads(text)) == {f"{name[:251]}.jpg" for name in visible}
