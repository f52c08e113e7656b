"""Configs of the trainer and the optimizer, and data-dependent defaults."""

from dataclasses import replace

import pytest
import torch

from vaegan.data.batches import LoaderConfig
from vaegan.gan.training_config import GANTraining, resolve_data_defaults
from vaegan.gan.warm_start import WarmStartConfig
from vaegan.training.optimizer import OptimizerConfig
from vaegan.training.trainer_config import TrainerConfig
from vaegan.vae.training_config import VAETraining
from vaegan.vae.training_config import resolve_data_defaults as resolve_vae_defaults


def learning_rates(config, num_steps):
    """Return the learning rate of each step."""
    optimizer, schedule = config.build([torch.nn.Parameter(torch.zeros(1))], lambda: num_steps)
    rates = []
    for _ in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_learning_rate_is_constant_by_default():
    assert learning_rates(OptimizerConfig(lr=0.1), 5) == [0.1] * 5


def test_learning_rate_rises_linearly_then_decays_by_a_cosine():
    rates = learning_rates(OptimizerConfig(lr=1.0, lr_warmup=0.2, lr_final=0.0), 10)
    assert rates[:2] == pytest.approx([0.5, 1.0])
    assert all(a > b for a, b in zip(rates[1:], rates[2:], strict=False))
    assert rates[5] == pytest.approx(0.5)  # half of the cosine decay
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert learning_rates(OptimizerConfig(lr=1.0, lr_final=0.1), 10)[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: OptimizerConfig(lr=0.0), "lr must be positive"),
        (lambda: OptimizerConfig(beta1=1.0), r"beta1 must be in \[0, 1\)"),
        (lambda: OptimizerConfig(beta2=-0.1), r"beta2 must be in \[0, 1\)"),
        (lambda: OptimizerConfig(lr_warmup=1.0), r"lr_warmup must be in \[0, 1\)"),
        (lambda: OptimizerConfig(lr_final=1.5), r"lr_final must be in \[0, 1\]"),
        (
            lambda: TrainerConfig(precision="bf16-true"),
            "precision must be one of 32-true, bf16-mixed, 16-mixed",
        ),
        (lambda: TrainerConfig(max_epochs=0), "max_epochs must be at least 1"),
        (lambda: TrainerConfig(devices=0), "devices must be at least 1"),
        (lambda: TrainerConfig(num_nodes=0), "num_nodes must be at least 1"),
        (
            lambda: TrainerConfig(limit_train_batches=1.5),
            r"limit_train_batches must be in \(0, 1\]",
        ),
        (lambda: TrainerConfig(val_check_interval=0.0), r"val_check_interval must be in \(0, 1\]"),
        (lambda: TrainerConfig(log_every_n_steps=0), "log_every_n_steps must be at least 1"),
        (
            lambda: VAETraining(early_stopping_patience=0),
            "early_stopping_patience must be at least 1, or null",
        ),
        (lambda: GANTraining(discriminator_warmup=-1), "discriminator_warmup must be at least 0"),
        (lambda: GANTraining(discriminator_steps=0), "discriminator_steps must be at least 1"),
        (lambda: GANTraining(saturation_logit=-1.0), "saturation_logit must be at least 0"),
        (lambda: GANTraining(saturation_fraction=1.5), r"saturation_fraction must be in \[0, 1\]"),
        (lambda: GANTraining(ema_half_life=0.0), "ema_half_life must be positive"),
    ],
)
def test_values_out_of_range_are_rejected(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("training", [VAETraining, GANTraining])
def test_batch_size_must_be_divisible_by_the_number_of_devices(training):
    message = r"loader\.batch_size must be divisible by .* = 6, such as 102; got 100"
    with pytest.raises(ValueError, match=message):
        training(loader=LoaderConfig(batch_size=100), trainer=TrainerConfig(devices=3, num_nodes=2))
    training(loader=LoaderConfig(batch_size=102), trainer=TrainerConfig(devices=3, num_nodes=2))


@pytest.mark.parametrize(
    "shape, is_natural, generator, discriminator",
    [
        ((1, 28, 28), False, (3e-3, 0.0), (2e-3, 0.0)),
        ((3, 32, 32), False, (3e-3, 0.0), (2e-3, 0.0)),
        ((3, 32, 32), True, (1e-3, 0.5), (1e-3, 0.5)),
        ((3, 48, 64), False, (3e-4, 0.5), (3e-4, 0.5)),
        ((3, 64, 64), True, (3e-4, 0.5), (3e-4, 0.5)),
    ],
)
def test_gan_defaults_depend_on_the_data(shape, is_natural, generator, discriminator):
    training = GANTraining()
    resolved = resolve_data_defaults(training, shape, 10_000, is_natural)
    assert training == GANTraining()
    adam = resolved.generator_optimizer
    assert (adam.lr, adam.beta1) == generator
    adam = resolved.discriminator_optimizer
    assert (adam.lr, adam.beta1) == discriminator
    assert resolved.discriminator_warmup == 1000
    assert resolved.saturation_logit == (0 if is_natural else 8)
    assert resolve_data_defaults(training, shape, 1_000_000).discriminator_warmup == 6400


@pytest.mark.parametrize(
    "shape, is_natural, lr", [((1, 28, 28), False, 3e-3), ((3, 32, 32), True, 4e-3)]
)
def test_gan_defaults_of_a_cold_start(shape, is_natural, lr):
    training = GANTraining(warm_start=WarmStartConfig(generator="none"))
    resolved = resolve_data_defaults(training, shape, 10_000, is_natural)
    assert resolved.saturation_logit == 8 and resolved.discriminator_warmup == 0
    assert resolved.generator_optimizer.lr == lr
    until_accurate = replace(training, discriminator_warmup_accuracy=0.8)
    resolved = resolve_data_defaults(until_accurate, shape, 10_000, is_natural)
    assert resolved.discriminator_warmup == 1000
    partly_warm = GANTraining(warm_start=WarmStartConfig(generator="last"))
    warm = [
        resolve_data_defaults(training, shape, 10_000, is_natural, is_trained=True),
        resolve_data_defaults(partly_warm, shape, 10_000, is_natural),
    ]
    for resolved in warm:
        assert resolved.saturation_logit == (0 if is_natural else 8)
        assert resolved.discriminator_warmup == 1000
        assert resolved.generator_optimizer.lr == (1e-3 if is_natural else 3e-3)


def test_given_settings_of_a_gan_are_kept():
    adam = OptimizerConfig(lr=0.1, beta1=0.5)
    rate_only = OptimizerConfig(lr=0.1, beta1=None)
    given = GANTraining(
        generator_optimizer=adam,
        discriminator_optimizer=rate_only,
        discriminator_warmup=0,
        saturation_logit=5.0,
    )
    resolved = resolve_data_defaults(given, (1, 28, 28), 1_000_000)
    assert resolved.saturation_logit == 5
    assert resolved.generator_optimizer == adam and resolved.discriminator_warmup == 0
    assert resolved.discriminator_optimizer == replace(rate_only, beta1=0.0)


@pytest.mark.parametrize(
    "is_natural, earlier, batch_size, lr",
    [
        (False, None, 128, 3e-3),
        (True, None, 32, 1e-3),
        (True, {"loader": {"batch_size": 16}, "optimizer": {"lr": 2e-3}}, 16, 2e-3),
    ],
)
def test_default_batch_size_and_learning_rate_of_a_vae(is_natural, earlier, batch_size, lr):
    resolved = resolve_vae_defaults(VAETraining(), is_natural, earlier)
    assert (resolved.loader.batch_size, resolved.optimizer.lr) == (batch_size, lr)
    given = replace(resolved, loader=LoaderConfig(batch_size=7), optimizer=OptimizerConfig(lr=5.0))
    assert resolve_vae_defaults(given, is_natural, earlier) == given


def test_the_default_batch_size_must_be_divisible_by_the_number_of_devices():
    training = VAETraining(trainer=TrainerConfig(devices=3))
    message = r"loader\.batch_size must be divisible by .* = 3, such as 33; got 32"
    with pytest.raises(ValueError, match=message):
        resolve_vae_defaults(training, is_natural=True)


def test_a_gan_needs_a_batch_size():
    with pytest.raises(ValueError, match=r"loader\.batch_size must be at least 1; got None"):
        GANTraining(loader=LoaderConfig(batch_size=None))


def test_vae_requires_the_momentum_of_its_optimizer():
    with pytest.raises(ValueError, match=r"optimizer\.beta1 must be in \[0, 1\); got None"):
        VAETraining(optimizer=OptimizerConfig(beta1=None))


@pytest.mark.parametrize("key", ["lr", "beta1"])
def test_an_optimizer_is_built_from_numbers(key):
    optimizer = OptimizerConfig(**{key: None})
    with pytest.raises(ValueError, match=f"all settings .* must be set; got .*{key}=None"):
        optimizer.build([torch.nn.Parameter(torch.zeros(1))], lambda: 1)


def test_timed_convolutions_are_refused_in_deterministic_training():
    with pytest.raises(ValueError, match="benchmark must be false with deterministic=true"):
        TrainerConfig(benchmark=True, deterministic=True)


def test_unknown_matmul_precision_is_refused():
    with pytest.raises(ValueError, match="matmul_precision must be one of highest, high, medium"):
        TrainerConfig(matmul_precision="tf32")
