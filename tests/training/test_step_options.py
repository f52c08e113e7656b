import pytest
import torch

from tests.conftest import SMALL_GAN, SMALL_VAE, compose
from vaegan.stages.stage_table import run_stage
from vaegan.training.step_options import StepOptions
from vaegan.training.trainer_config import TrainerConfig
from vaegan.vae.module import VAEModule


def final_weights(folder, *words):
    """Return the weights after a training."""
    result = run_stage(compose(*words), folder)
    path = result.folder / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.fixture
def backend(monkeypatch):
    """Compile by torch's tracer alone, which needs no C++ compiler; return the compiled graphs."""
    graphs = []

    def compile_graph(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr("vaegan.training.compilation.BACKEND", compile_graph)
    return graphs


@pytest.mark.slow
def test_compiled_training_gives_the_same_weights(backend, tmp_path):
    vae_ckpt = f"vae_ckpt={tmp_path / 'vae_false'}"
    gan = [*SMALL_GAN, "gradient_penalty.interval=2", "noise_inputs=true", vae_ckpt]
    vae = [*SMALL_VAE, "decoder.skip_excitation=true"]
    for stage, words in (("vae", vae), ("gan", gan)):
        weights = {}
        for value in ("false", "true"):
            folder = tmp_path / f"{stage}_{value}"
            weights[value] = final_weights(folder, *words, f"trainer.compile={value}")
            assert bool(backend) == (value == "true")
        backend.clear()
        assert weights["false"].keys() == weights["true"].keys()
        for name, expected in weights["false"].items():
            assert torch.equal(weights["true"][name], expected), name


def test_matmul_precision_applies_to_training_steps_only():
    options = StepOptions(TrainerConfig(matmul_precision="high"))
    options.on_train_batch_start()
    assert torch.get_float32_matmul_precision() == "high"
    options.on_train_batch_end()
    assert torch.get_float32_matmul_precision() == "highest"


def test_deterministic_training_uses_deterministic_algorithms(tmp_path, monkeypatch):
    seen = []
    original = VAEModule.training_step

    def training_step(self, batch, batch_idx):
        seen.append((torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(VAEModule, "training_step", training_step)
    words = ["trainer.max_epochs=1", "objective.beta_warmup_epochs=0"]
    run_stage(compose(*SMALL_VAE, *words, "trainer.deterministic=true"), tmp_path / "deterministic")
    assert set(seen) == {(True, False)}
    seen.clear()
    run_stage(compose(*SMALL_VAE, *words, "trainer.benchmark=true"), tmp_path / "benchmark")
    assert set(seen) == {(False, True)}
