"""CUDA graphs of training steps, without a GPU: captured calls are executed at each replay."""

import logging
from contextlib import nullcontext

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from tests.conftest import SMALL_DATA, SMALL_VAE, compose
from tests.gan.test_module import SOURCE, make_module
from vaegan.config import GROUPS
from vaegan.data.datamodule import ImageDataModule
from vaegan.gan.steps import GeneratorTerms
from vaegan.stages.stage_table import run_stage
from vaegan.training.devices import silence_warnings
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.training.step_graphs import (
    NUM_EAGER,
    CapturedCall,
    OperationRecorder,
    StepGraphs,
    check_equal,
    uncached_autocast,
)
from vaegan.training.step_options import StepOptions
from vaegan.training.trainer_config import TrainerConfig
from vaegan.vae.model import VAE
from vaegan.vae.module import VAEModule


class CPUGraphs(StepGraphs):
    """Step graphs that need no GPU."""

    def __init__(self):
        super().__init__(torch.device("cpu"), records_operations=True)

    def prepare(self):
        self.passes = nullcontext

    def clean_up(self):
        pass


class ReplayedGraphs(CPUGraphs):
    """Replay a call by executing it on its static inputs, into its static outputs."""

    num_captured = 0

    def capture(self, function, inputs, parameters):
        self.num_captured += 1

        def replay():
            for static, output in zip(call.outputs, function(*call.inputs), strict=True):
                static.copy_(output)
            for static, parameter in zip(call.gradients, parameters, strict=True):
                static.copy_(parameter.grad)

        call = CapturedCall(function, inputs, parameters, nullcontext(), replay)
        for parameter in parameters:
            parameter.grad = None
        return call


def scaled_sum(layer):
    """Return a function of images and a scale that computes the gradients of a layer."""

    def function(x, scale):
        loss = scale * layer(x).sum()
        loss.backward()
        return (loss.detach(),)

    return function


def test_a_replay_uses_new_inputs_and_the_same_outputs():
    layer = nn.Linear(3, 2, bias=False)
    graphs = ReplayedGraphs()
    results = []
    for step in range(NUM_EAGER + 3):
        x = torch.randn(4, 3)
        (loss,) = graphs.run("key", scaled_sum(layer), [layer.weight], x, step / 2)
        expected = step / 2 * x.sum(0).expand(2, 3)
        torch.testing.assert_close(layer.weight.grad, expected)
        torch.testing.assert_close(loss, step / 2 * layer(x).sum().detach())
        assert graphs.num_captured == (step >= NUM_EAGER)
        results.append(loss)
    assert results[-1] is results[-2] and results[-1] is not results[0]
    layer.weight.grad = None  # as Lightning does after a training step
    graphs.restore_gradients()
    torch.testing.assert_close(layer.weight.grad, expected)


def test_keys_and_shapes_are_captured_apart():
    layer = nn.Linear(3, 2)
    graphs = ReplayedGraphs()
    for _ in range(NUM_EAGER + 1):
        for key, size in (("a", 4), ("b", 4), ("b", 5)):
            graphs.run(key, scaled_sum(layer), list(layer.parameters()), torch.randn(size, 3), 1.0)
    assert graphs.num_captured == 3


def test_a_step_that_cannot_be_captured_is_executed(caplog):
    class FailingGraphs(CPUGraphs):
        def capture(self, function, inputs, parameters):
            function(*inputs)  # leaves gradients behind
            raise RuntimeError("operation not permitted\nmore")

    layer = nn.Linear(3, 2, bias=False)
    graphs = FailingGraphs()
    x = torch.randn(4, 3)
    with caplog.at_level(logging.WARNING):
        for _ in range(NUM_EAGER + 3):
            graphs.run("key", scaled_sum(layer), [layer.weight], x, 1.0)
            torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(2, 3))
    (record,) = caplog.records
    assert record.getMessage().endswith("slower: operation not permitted")


def test_a_step_whose_numbers_change_is_executed(caplog):
    """A replay would repeat the number of the captured step."""
    layer = nn.Linear(3, 2, bias=False)
    graphs, x = ReplayedGraphs(), torch.randn(4, 3)
    with caplog.at_level(logging.WARNING):
        for step in range(NUM_EAGER + 3):

            def function(x, weight=1 / (1 + step)):
                loss = weight * layer(x).sum()
                loss.backward()
                return (loss.detach(),)

            graphs.run("key", function, [layer.weight], x)
            torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(2, 3) / (1 + step))
    assert graphs.num_captured == 0
    assert caplog.text.count("the arguments of aten.mul.Tensor differ from step to step") == 1


@pytest.mark.parametrize("numbers, is_equal", [((0.5, 0.5), True), ((0.5, 0.25), False)])
def test_a_scalar_tensor_on_the_cpu_counts_as_a_number(numbers, is_equal):
    """On a GPU, a replay would repeat its value."""
    x, calls = torch.ones(3, device="meta"), []
    for number in numbers:
        with OperationRecorder(x.device) as recorder:
            x * torch.tensor(number)
        calls.append([call for call in recorder.operations if "mul" in call[0]])
    with nullcontext() if is_equal else pytest.raises(RuntimeError, match="arguments of aten.mul"):
        check_equal(calls)


class RecordedGraphs(CPUGraphs):
    """Execute all calls, and record the operations of each key."""

    def __init__(self):
        super().__init__()
        self.is_enabled = False

    def run(self, key, function, parameters, *inputs, fallback=None):
        def recorded(*tensors):
            with OperationRecorder(torch.device("cpu")) as recorder:
                outputs = function(*tensors)
            self.operations.setdefault(key, []).append(recorder.operations)
            return outputs

        return super().run(key, recorded, parameters, *inputs)


def train(module, graphs, precision="32-true"):
    """Train a module for 8 steps; return its weights."""
    silence_warnings()
    module.step_graphs = graphs
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[PerStepSeeding(0)],
    )
    trainer.fit(module, ImageDataModule(SOURCE, module.training_config.loader, seed=0))
    assert trainer.global_step == 8
    return module.state_dict()


def vae_module(*words):
    words = ["loader.batch_size=32", "objective.beta_warmup_epochs=0.5", *words]
    run = compose("stage=vae", *SMALL_DATA, "latent_dim=8", "optimizer.lr=3e-3", *words)
    torch.manual_seed(0)
    return VAEModule(VAE(SOURCE.image_shape, run), run.objective.build(), run, {})


def gan_module(*words):
    torch.manual_seed(0)
    return make_module(
        "loader.batch_size=32", "discriminator_warmup=32", "saturation_fraction=0.75", *words
    )


def assert_equal(weights, expected):
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, msg=lambda text, n=name: f"{n}: {text}")


def choices(*groups):
    return [[f"{group}={choice}"] for group in groups for choice in GROUPS[group].choices]


VAE_CHOICES = choices("likelihood", "prior", "posterior", "objective", "encoder", "decoder")
VAE_SETTINGS = (
    ["likelihood=gaussian", "likelihood.scale=optimal"],
    ["objective=dreg", "objective.num_samples=3", "objective.beta_schedule=linear"],
    ["decoder.skip_excitation=true"],
    ["prior=vamp_prior", "prior.num_pseudo_inputs=20", "objective.free_bits=0.1"],
)
GAN_CHOICES = choices("adversarial_loss", "gradient_penalty", "augmentation")
GAN_SETTINGS = (
    ["warm_start.reconstruction_weight=1", "warm_start.reconstruction_images=160"],
    ["warm_start.reconstruction_weight=1", "warm_start.feature_weight=1"],
    ["gradient_penalty=r1_r2", "gradient_penalty.gamma_final=0.1", "gradient_penalty.interval=1"],
    ["gradient_penalty=wgan_gp", "discriminator_steps=2"],
    ["augmentation=diff_augment", "augmentation.adaptive_target=0.6"],
    ["emphasis.saturation=3", "emphasis.sharpness=4", "gradient_penalty.interval=1"],
    ["gradient_accumulation=2", "gradient_clip=1.0", "discriminator.spectral_norm=true"],
    ["warm_start.freeze_layers=2", "warm_start.freeze_images=64"],
    ["noise_inputs=true"],
)


@pytest.mark.parametrize("words", [*VAE_CHOICES, *VAE_SETTINGS], ids=" ".join)
def test_vae_steps_repeat_their_operations(words):
    has_samples = words[0] in ("objective=iwae", "objective=dreg")
    more = ["objective.num_samples=3"] if has_samples else []
    check_operations(vae_module, [*words, *more], compares_weights=words in VAE_SETTINGS)


@pytest.mark.parametrize("words", [*GAN_CHOICES, *GAN_SETTINGS], ids=" ".join)
def test_gan_steps_repeat_their_operations(words):
    has_interval = words[0] not in ("gradient_penalty=none", "gradient_penalty=wgan_gp")
    more = ["gradient_penalty.interval=1"] if has_interval else []
    operations = check_operations(gan_module, [*more, *words], words in GAN_SETTINGS)
    if has_interval:
        assert all(variant[1] for player, variant in operations if player == "discriminator")


def check_operations(build, words, compares_weights):
    """Steps with the same key must repeat all operations and numbers, as a replay does."""
    graphs = RecordedGraphs()
    weights = train(build(*words), graphs)
    assert max(map(len, graphs.operations.values())) > 2
    for key, calls in graphs.operations.items():
        for operations in calls[1:]:  # the first one may set things up
            assert operations == calls[-1], key
    if compares_weights:
        assert_equal(weights, train(build(*words), None))
    return graphs.operations


@pytest.mark.parametrize("words", [["posterior=full_normal"], ["prior=flow"]], ids=" ".join)
def test_bfloat16_gives_the_same_weights_with_graphs(words):
    weights = [
        train(vae_module(*words), graphs, "bf16-mixed") for graphs in (RecordedGraphs(), None)
    ]
    assert_equal(*weights)


@pytest.mark.parametrize("prior", GROUPS["prior"].choices)
def test_gan_steps_draw_from_every_prior_without_waiting(prior):
    module = gan_module()
    config = GROUPS["prior"].choices[prior].Config()
    module.vae.prior = config.build(module.vae.prior.latent_dim, SOURCE.image_shape)
    graphs = RecordedGraphs()
    train(module, graphs)
    names = {name for calls in graphs.operations.values() for name, *_ in calls[-1]}
    assert not names & {"aten.multinomial.default", "aten._local_scalar_dense.default"}


def test_a_generator_step_that_cannot_be_captured_regenerates_its_fakes():
    class GeneratorFails(CPUGraphs):
        def capture(self, function, inputs, parameters):
            outputs = function(
                *inputs
            )  # uses up the autograd graph of the fakes of an earlier call
            if not isinstance(outputs, GeneratorTerms):
                return lambda values: outputs
            raise RuntimeError("operation not permitted")

    graphs = GeneratorFails()
    words = ["gradient_penalty=none", "discriminator_warmup=0"]
    weights = train(gan_module(*words), graphs)
    assert not graphs.is_enabled
    assert_equal(weights, train(gan_module(*words), None))


def test_graphs_are_used_in_training_only(monkeypatch):
    monkeypatch.setattr(
        "vaegan.training.step_options.StepGraphs", lambda *args, **kwargs: CPUGraphs()
    )
    monkeypatch.setattr(TrainerConfig, "uses_cuda_graphs", lambda *args: True)
    options, module = StepOptions(TrainerConfig()), vae_module()
    module.terms["train/loss"] = torch.ones(())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    for end in (options.on_train_end, options.on_exception):
        options.on_train_start(None, module)
        assert isinstance(module.step_graphs, CPUGraphs)
        end(None, module)
        assert module.step_graphs is None
        assert all(parameter.grad is None for parameter in module.parameters())
        assert module.terms == {}


def test_autocast_casts_weights_in_every_pass():
    """A graph with a cached copy of a weight would not see its updates."""
    layer, x = nn.Linear(3, 1, bias=False), torch.ones(1, 3)
    nn.init.ones_(layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        for num_updates in range(3):
            with uncached_autocast():
                assert layer(x).item() == 3 + 3 * num_updates
            assert torch.is_autocast_cache_enabled()
            with torch.no_grad():
                layer.weight.add_(1)


def test_the_default_is_one_cuda_device_without_a_gradient_scaler():
    assert TrainerConfig().uses_cuda_graphs(is_nvidia=True)
    assert not TrainerConfig().uses_cuda_graphs(is_nvidia=False)
    assert TrainerConfig(strategy="ddp").uses_cuda_graphs(is_nvidia=True)
    for settings in ({"devices": 2}, {"strategy": "fsdp"}, {"precision": "16-mixed"}):
        assert not TrainerConfig(**settings).uses_cuda_graphs(is_nvidia=True)
    assert not TrainerConfig(cuda_graphs=False).uses_cuda_graphs(is_nvidia=True)


@pytest.mark.parametrize(
    "settings, key",
    [
        ({"devices": 2}, "devices"),
        ({"strategy": "fsdp"}, "strategy"),
        ({"precision": "16-mixed"}, "precision"),
    ],
)
def test_settings_that_graphs_do_not_support_are_refused(settings, key):
    with pytest.raises(ValueError, match=f"{key}.* with cuda_graphs=true"):
        TrainerConfig(cuda_graphs=True, **settings)


def test_graphs_on_a_cpu_are_refused_before_the_data_is_read(tmp_path):
    with pytest.raises(
        ValueError, match="trainer.cuda_graphs must be false on a device that is not"
    ):
        run_stage(compose(*SMALL_VAE, "trainer.cuda_graphs=true"), tmp_path)
