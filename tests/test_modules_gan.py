import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import SMALL_GAN, SMALL_NETS, compose
from vaegan.adversarial import AdversarialLoss, GradientPenalty
from vaegan.config import to_plain
from vaegan.data.datasets import Shapes
from vaegan.data.module import ImageDataModule
from vaegan.models import VAE
from vaegan.modules.gan import GANModule
from vaegan.stages.fitting import quiet
from vaegan.stages.gan import build_generator

SOURCE = Shapes.Config(height=12, width=12, num_train=256, num_val=64, num_test=64).build()
NUM_BATCHES = 4  # an epoch of 256 images in batches of 64


def make(*overrides, warm_start=True):
    run = compose(*SMALL_GAN, "vae_ckpt=none", *overrides)
    vae_run = compose("stage=vae", *SMALL_NETS)
    vae = VAE(vae_run, SOURCE.image_shape)
    return GANModule(
        vae,
        build_generator(vae, to_plain(vae_run), warm_start, seed=0),
        run.discriminator.build(SOURCE.image_shape),
        run.adversarial_loss.build(),
        run.gradient_penalty.build(),
        run,
        {},
    )


def fit(module, max_epochs=1, callbacks=()):
    quiet()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        log_every_n_steps=1,
        callbacks=list(callbacks),
    )
    trainer.fit(module, ImageDataModule(SOURCE, module.training_config.loader, seed=0))
    return trainer


def gradients(network):
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def same(first, second):
    pairs = zip(first, second, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def record_steps(module, monkeypatch):
    """The gradients of both networks at every optimizer step: (player, of the generator, of the discriminator)."""
    steps, original = [], module.apply_step

    def apply_step(optimizer, is_counted):
        player = "d" if optimizer.param_groups[0]["params"][0] is next(module.discriminator.parameters()) else "g"
        steps.append((player, gradients(module.generator.decoder), gradients(module.discriminator)))
        original(optimizer, is_counted)

    monkeypatch.setattr(module, "apply_step", apply_step)
    return steps


def test_the_warm_generator_is_bit_for_bit_the_vaes_decoder():
    module = make()
    z = torch.randn(16, 8)
    expected = module.vae.decode(z).mean
    assert torch.equal(module.generator(z), expected)
    assert torch.equal(module.average(z), expected)


def test_a_cold_generator_has_the_same_architecture_and_other_weights():
    cold = make(warm_start=False)
    own, vaes = cold.generator.decoder.state_dict(), cold.vae.decoder.state_dict()
    assert {key: value.shape for key, value in own.items()} == {key: value.shape for key, value in vaes.items()}
    assert not any(torch.equal(own[key], vaes[key]) for key in own if key.endswith("weight"))


@pytest.mark.parametrize("loss", sorted(AdversarialLoss.choices))
@pytest.mark.parametrize("penalty", sorted(GradientPenalty.choices))
def test_no_gradient_reaches_the_other_player(monkeypatch, loss, penalty):
    module = make(f"adversarial_loss={loss}", f"gradient_penalty={penalty}", "gradient_penalty.interval=1")
    module.training_config.discriminator_warmup = 0
    steps = record_steps(module, monkeypatch)
    vae_before = weights(module.vae)
    fit(module)
    assert [player for player, *_ in steps] == ["d", "g"] * NUM_BATCHES
    for (player, g_grads, d_grads), (_, g_next, d_next) in zip(steps, steps[1:], strict=False):
        if player == "d":  # then comes the generator's step: the discriminator's gradient stays what it was
            assert same(d_grads, d_next) and not same(g_grads, g_next)
        else:
            assert same(g_grads, g_next) and not same(d_grads, d_next)
    assert torch.equal(weights(module.vae), vae_before)
    assert all(p.requires_grad for p in module.discriminator.parameters())


def test_during_the_warmup_the_discriminator_learns_and_the_generator_is_frozen():
    module = make(
        "discriminator_warmup=768", "trainer.max_epochs=4", "discriminator_optimizer.lr=2e-3"
    )  # three of four epochs
    frozen, trained = weights(module.generator.decoder), weights(module.discriminator)
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["train/d_loss"]))
            is_same = torch.equal(weights(module.generator.decoder), frozen)
            assert is_same is (trainer.current_epoch < 3)
            if is_same:
                assert torch.equal(weights(module.average.decoder), frozen)

    fit(module, 4, [Watch()])
    assert not torch.equal(weights(module.discriminator), trained)
    assert not torch.equal(weights(module.average.decoder), frozen)
    assert not torch.equal(weights(module.average.decoder), weights(module.generator.decoder))
    assert sum(losses[8:12]) < 0.8 * sum(losses[:4]), "the discriminator does not learn"


@pytest.mark.parametrize("discriminator_steps", [1, 3])
@pytest.mark.parametrize("warmup", [0, 128])
def test_global_step_counts_batches(monkeypatch, discriminator_steps, warmup):
    module = make(f"discriminator_steps={discriminator_steps}")
    module.training_config.discriminator_warmup = warmup
    steps = record_steps(module, monkeypatch)
    trainer = fit(module, 2)
    assert trainer.global_step == 2 * NUM_BATCHES
    players = [player for player, *_ in steps]
    assert players.count("d") == 2 * NUM_BATCHES * discriminator_steps
    assert players.count("g") == 2 * NUM_BATCHES - warmup // 64


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_the_penalty_is_lazy_and_weighs_as_much_as_if_it_were_not(monkeypatch, discriminator_steps):
    module = make("gradient_penalty.interval=3", f"discriminator_steps={discriminator_steps}")
    weight = next(module.discriminator.parameters())

    class NoLoss(AdversarialLoss):
        def discriminator(self, real, fake):
            return 0 * (real + fake)

        def generator(self, fake, real):
            return 0 * fake

    module.loss = NoLoss()
    monkeypatch.setattr(type(module.penalty), "__call__", lambda self, d, real, fake: weight.sum().expand(len(real)))
    steps = record_steps(module, monkeypatch)
    fit(module, 3)
    factors = [d_grads[0].mean().item() for player, _, d_grads in steps if player == "d"]
    assert factors == pytest.approx([3.0, 0.0, 0.0] * 4 * discriminator_steps)


@pytest.mark.parametrize("batch_size", [32, 64])
def test_the_moving_average_halves_a_share_in_its_half_life(batch_size):
    module = make("average_half_life=128", f"loader.batch_size={batch_size}")
    start = weights(module.average.decoder).clone()
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    module.moving_average.update_parameters(module.generator)  # the first one copies
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    for _ in range(128 // batch_size):
        module.moving_average.update_parameters(module.generator)
    torch.testing.assert_close(weights(module.average.decoder), start + 1.5)


def test_buffers_are_copied_into_the_moving_average():
    module = make()
    for network in (module.generator.decoder, module.average.decoder):
        network.register_buffer("count", torch.zeros(3))
    module.generator.decoder.count += 7
    module.moving_average.update_parameters(module.generator)
    assert module.average.decoder.count.tolist() == [7, 7, 7]


def test_both_learning_rates_fall_to_their_end():
    ends = [f"{player}_optimizer.lr_final=0" for player in ("generator", "discriminator")]
    module = make("discriminator_warmup=128", "discriminator_steps=2", "trainer.max_epochs=2", *ends)
    trainer = fit(module, 2)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([0.0, 0.0], abs=1e-9)


def score(module, split="validate"):
    quiet()
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    torch.manual_seed(0)
    data = ImageDataModule(SOURCE, module.training_config.loader, seed=0)
    (metrics,) = getattr(trainer, split)(module, data, verbose=False)
    return next(iter(metrics.values()))


def test_the_moving_average_is_scored_and_not_the_live_generator():
    module = make()
    first = score(module)
    torch.nn.init.zeros_(module.generator.decoder.net[0].weight)
    assert score(module) == first
    torch.nn.init.zeros_(module.average.decoder.net[0].weight)
    assert score(module) != first


def test_the_test_split_is_compared_with_its_own_real_images():
    module, fresh = make(), make()
    fresh.load_state_dict(module.state_dict())
    score(module)
    assert score(module, "test") == score(fresh, "test")


def test_scoring_leaves_the_networks_and_their_modes_alone():
    module = make()
    before, was_training = weights(module), module.generator.training
    assert score(module) > 0
    assert torch.equal(weights(module), before) and module.generator.training is was_training
    parts = {key.split(".")[0] for key in module.state_dict()}
    assert parts == {"vae", "generator", "discriminator", "moving_average"}
