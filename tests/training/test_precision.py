"""The default precision: bfloat16 for natural images on a CPU with AMX, else float32."""

import logging

import pytest
import torch

from tests.conftest import SMALL_PIPELINE, SMALL_VAE, compose
from tests.stages.test_run_folder import stop_after_two_batches
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.gan.warm_start import NATURAL_FEATURE_WEIGHT
from vaegan.networks.decoders import Decoder
from vaegan.runtime.atomic_files import read_json, write_json
from vaegan.stages.stage_table import run_stage
from vaegan.training.precision import has_amx, resolve_precision
from vaegan.training.trainer_config import TrainerConfig


@pytest.fixture
def amx(monkeypatch):
    """Make this CPU one with AMX."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_init_amx", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
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


@pytest.mark.parametrize("name", ["_is_amx_tile_supported", "_init_amx"])
def test_amx_must_exist_and_be_permitted(name, amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, name, lambda: False)
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
    assert resolve_precision(TrainerConfig(**options), is_natural, None).precision == expected


def test_default_precision_without_amx():
    config = TrainerConfig(accelerator="cpu")
    assert resolve_precision(config, True, None).precision == "32-true"


def test_resumed_runs_keep_their_precision(amx):
    config = TrainerConfig(accelerator="cpu")
    for earlier, expected in ((None, "bf16-mixed"), ("32-true", "32-true")):
        saved = {"trainer": {"precision": earlier}}
        assert resolve_precision(config, True, saved).precision == expected
    config = TrainerConfig(accelerator="cpu", precision="16-mixed")
    assert resolve_precision(config, True, {"trainer": {"precision": "32-true"}}) == config


@pytest.mark.slow
def test_natural_images_are_trained_with_defaults_of_their_own(amx, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("vaegan.data.shapes.Shapes.IS_NATURAL", True)
    seen = set()

    def record(module, inputs, output):
        if isinstance(module, Decoder):
            seen.add((module.training, output.dtype))

    cpu = [f"{stage}.trainer.accelerator=cpu" for stage in ("vae", "gan")]
    hook = torch.nn.modules.module.register_module_forward_hook(record)
    with caplog.at_level(logging.INFO):
        run_stage(compose(*SMALL_PIPELINE, *cpu, "vae.loader.batch_size=null"), tmp_path)
    hook.remove()
    # Evaluations are in float32, as are some passes before the first step.
    assert (True, torch.bfloat16) in seen and (False, torch.bfloat16) not in seen
    for stage in ("vae", "gan"):
        assert f"{stage}: trainer.precision=bf16-mixed" in caplog.text
        checkpoint = load_checkpoint(tmp_path / stage / "checkpoints" / "best.ckpt")
        assert checkpoint.run["trainer"]["precision"] == "bf16-mixed"
        assert checkpoint.vae["decoder"]["padding"] == "replicate"
    assert checkpoint.run["warm_start"]["feature_weight"] == NATURAL_FEATURE_WEIGHT
    run = load_checkpoint(tmp_path / "vae" / "checkpoints" / "best.ckpt").run
    assert (run["loader"]["batch_size"], run["optimizer"]["lr"]) == (32, 1e-3)


@pytest.mark.slow
def test_resumed_run_of_an_earlier_version_keeps_its_settings(amx, tmp_path, monkeypatch):
    monkeypatch.setattr("vaegan.data.shapes.Shapes.IS_NATURAL", True)
    words = [*SMALL_VAE, "trainer.accelerator=cpu"]
    words.append("loader.batch_size=null")
    earlier = ["trainer.precision=32-true", "loader.batch_size=64", "optimizer.lr=3e-3"]
    earlier = compose(*words, "decoder.padding=zeros", *earlier)
    run_stage(earlier, tmp_path / "expected")
    stop_after_two_batches(earlier, tmp_path / "run", monkeypatch)
    config = read_json(tmp_path / "run" / "config.json")
    for key in ("padding", "skip_excitation"):
        del config["config"]["decoder"][key]
    write_json(tmp_path / "run" / "config.json", config)
    (path,) = (tmp_path / "run" / "vae" / "checkpoints").glob("*.ckpt")
    content = torch.load(path, weights_only=True)
    for entry in ("run", "vae"):
        for key in ("padding", "skip_excitation"):
            content["vaegan"][entry]["decoder"].pop(key, None)
    torch.save(content, path)
    run_stage(compose(*words, "resume=true"), tmp_path / "run")
    states = [
        load_checkpoint(tmp_path / run / "vae" / "checkpoints" / "last.ckpt").state
        for run in ("run", "expected")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
