"""Denormal numbers are zero in a run, also in the other threads of PyTorch."""

import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import SMALL_VAE, TRAIN, compose
from vaegan.runtime.denormals import denormals_are_zero, denormals_as_zero
from vaegan.stages import execute as execute_module
from vaegan.stages.execute import execute

DENORMAL = 1e-39


@pytest.fixture(autouse=True)
def unchanged():
    assert not denormals_are_zero()
    yield
    assert not denormals_are_zero()


def test_denormals_are_zero_in_the_context():
    with denormals_as_zero():
        assert (torch.full((8,), DENORMAL) * 0.5).count_nonzero() == 0
        with denormals_as_zero():
            assert denormals_are_zero()
        assert denormals_are_zero()
    assert (torch.full((8,), DENORMAL) * 0.5).count_nonzero() == 8


def test_the_setting_is_restored_after_an_error():
    with pytest.raises(ZeroDivisionError), denormals_as_zero():
        raise ZeroDivisionError


def test_threads_that_start_in_the_context_treat_denormals_as_zero():
    code = (
        "import torch; from vaegan.runtime.denormals import denormals_as_zero\n"
        "torch.set_num_threads(2)\n"
        "with denormals_as_zero():\n"
        "    print((torch.full((1_000_000,), 1e-37) * 1e-3).count_nonzero().item())\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout.strip() == "0", ended.stderr


def test_no_thread_starts_before_a_run(tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(2)\n"
        "from vaegan.cli.main import main\n"
        "from vaegan.stages import execute\n"
        "def count(run, folder):\n"
        "    print('nonzero:', (torch.full((1_000_000,), 1e-37) * 1e-3).count_nonzero().item())\n"
        "execute.run_stage = count\n"
        "sys.argv = ['train.py', 'stage=vae', 'dataset=shapes', 'hydra.run.dir=run']\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(TRAIN.parent)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "run").is_dir() and "nonzero: 0" in ended.stdout, ended.stdout + ended.stderr


def test_the_answer_does_not_depend_on_the_default_dtype():
    for dtype in (torch.bfloat16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            assert not denormals_are_zero()
            with denormals_as_zero():
                assert denormals_are_zero()
        finally:
            torch.set_default_dtype(torch.float32)


def test_denormals_are_zero_in_a_run(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        execute_module, "run_stage", lambda run, folder: seen.append(denormals_are_zero())
    )
    execute(compose(*SMALL_VAE), tmp_path)
    assert seen == [True]
