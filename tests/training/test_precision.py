"""The default precision: bfloat16 for natural images on a CPU with AMX, else float32."""

import logging

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.stages.stage_table import run_stage
from vaegan.training.precision import choose_precision, has_amx
from vaegan.training.trainer_config import TrainerConfig


@pytest.fixture
def amx(monkeypatch):
    """Make this CPU one with AMX."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")


@pytest.mark.parametrize(
    "limit, expected",
    [
        ("DEFAULT", True),
        ("AVX512_CORE_AMX", True),
        ("avx10_1_512_amx", True),
        ("AVX512_CORE_BF16", False),
        ("AVX2", False),
    ],
)
def test_amx_is_not_used_if_onednn_is_limited_to_older_instructions(
    limit, expected, amx, monkeypatch
):
    assert has_amx()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_amx() == expected


def test_cpu_without_amx(amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not has_amx()


@pytest.mark.parametrize(
    "options, is_natural, has_gpu, expected",
    [
        ({}, True, False, "bf16-mixed"),
        ({}, False, False, "32-true"),
        ({}, True, True, "32-true"),
        ({"accelerator": "cpu"}, True, True, "bf16-mixed"),
        ({"accelerator": "gpu"}, True, True, "32-true"),
        ({"precision": "32-true"}, True, False, "32-true"),
        ({"precision": "16-mixed"}, False, True, "16-mixed"),
    ],
)
def test_default_precision(options, is_natural, has_gpu, expected, amx, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: has_gpu)
    assert choose_precision(TrainerConfig(**options), is_natural, "vae") == expected


def test_default_precision_without_amx():
    assert choose_precision(TrainerConfig(accelerator="cpu"), True, "vae") == "32-true"


@pytest.mark.slow
def test_natural_images_are_trained_in_bfloat16(amx, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("vaegan.data.shapes.Shapes.IS_NATURAL", True)
    seen = set()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: (
            seen.add((module.training, output.dtype))
            if isinstance(module, torch.nn.Conv2d)
            else None
        )
    )
    run = compose(
        *("stage=vae", "dataset=shapes", "dataset.num_train=256", *SMALL_NETS),
        *("trainer.max_epochs=1", "trainer.accelerator=cpu"),
    )
    with caplog.at_level(logging.INFO):
        run_stage(run, tmp_path)
    hook.remove()
    # Evaluations are in float32, as are some initial passes in training mode.
    assert (True, torch.bfloat16) in seen and (False, torch.bfloat16) not in seen
    assert "vae: trainer.precision=bf16-mixed, because this CPU has AMX" in caplog.text
