import copy

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import SMALL_GAN, SMALL_NETS, compose
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.module import GANModule
from vaegan.gan.penalties import GradientPenalty
from vaegan.gan.steps import reconstruction_loss
from vaegan.gan.training_config import resolve_data_defaults
from vaegan.stages.gan import build_components, build_scorer
from vaegan.training.devices import silence_warnings
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.vae.model import VAE

SOURCE = Shapes.Config(height=12, width=12, num_train=256, num_val=64, num_test=64).build()
NUM_BATCHES = 4  # an epoch of 256 images in batches of 64


def make(*overrides):
    run = compose(*SMALL_GAN, "vae_ckpt=none", *overrides)
    run = resolve_data_defaults(run, SOURCE.image_shape, num_images=10_000)
    vae_run = compose("stage=vae", *SMALL_NETS)
    vae = VAE(SOURCE.image_shape, vae_run)
    data = ImageDataModule(SOURCE, run.loader, seed=0)
    components, _ = build_components(
        run, run.warm_start, vae, lambda: VAE(SOURCE.image_shape, vae_run), data, seed=0
    )
    return GANModule(components, build_scorer(run.feature_extractor, vae, data), run, {})


def fit(module, max_epochs=1, callbacks=(), **options):
    silence_warnings()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        callbacks=list(callbacks),
        **({"limit_val_batches": 0} | options),
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
    """Record (player, gradients of generator, of discriminator) at every optimizer step."""
    steps, original = [], module.apply_step

    def apply_step(optimizer, network, player, counts_step):
        steps.append((player, gradients(module.generator.decoder), gradients(module.discriminator)))
        return original(optimizer, network, player, counts_step)

    monkeypatch.setattr(module, "apply_step", apply_step)
    return steps


def test_the_warm_generator_is_bit_for_bit_the_vaes_decoder():
    module = make()
    z = torch.randn(16, 8)
    expected = module.vae.decode(z).mean
    assert torch.equal(module.generator(z), expected)
    assert torch.equal(module.generator_ema(z), expected)


def test_a_cold_generator_has_the_same_architecture_and_other_weights():
    cold = make("warm_start.generator=none")
    own, vaes = cold.generator.decoder.state_dict(), cold.vae.decoder.state_dict()
    assert {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in vaes.items()
    }
    assert not any(torch.equal(own[key], vaes[key]) for key in own if key.endswith("weight"))


def test_a_cold_generator_starts_at_the_best_constant_image():
    images = make("warm_start.generator=none").generator(torch.randn(64, 8))
    mean = (SOURCE.split("train").images[:200].float() / 255).mean()
    torch.testing.assert_close(images.mean(), mean, rtol=0.2, atol=0)
    assert images.std(0).mean() < 0.05


@pytest.mark.parametrize("loss", sorted(AdversarialLoss.choices))
@pytest.mark.parametrize("penalty", sorted(GradientPenalty.choices))
def test_no_gradient_reaches_the_other_player(monkeypatch, loss, penalty):
    lazy = [] if penalty == "none" else ["gradient_penalty.interval=1"]
    words = ["discriminator_warmup=0", f"adversarial_loss={loss}", f"gradient_penalty={penalty}"]
    module = make(*words, *lazy)
    steps = record_steps(module, monkeypatch)
    vae_before = weights(module.vae)
    fit(module)
    assert [player for player, *_ in steps] == ["d", "g"] * NUM_BATCHES
    for (player, g_grads, d_grads), (_, g_next, d_next) in zip(steps, steps[1:], strict=False):
        if (
            player == "d"
        ):  # then comes the generator's step: the discriminator's gradient stays what it was
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
                assert torch.equal(weights(module.generator_ema.decoder), frozen)

    fit(module, 4, [Watch()])
    assert not torch.equal(weights(module.discriminator), trained)
    assert not torch.equal(weights(module.generator_ema.decoder), frozen)
    assert not torch.equal(weights(module.generator_ema.decoder), weights(module.generator.decoder))
    assert sum(losses[8:12]) < 0.8 * sum(losses[:4]), "the discriminator does not learn"


@pytest.mark.parametrize("discriminator_steps", [1, 3])
@pytest.mark.parametrize("warmup", [0, 128])
def test_global_step_counts_batches(monkeypatch, discriminator_steps, warmup):
    module = make(f"discriminator_steps={discriminator_steps}", f"discriminator_warmup={warmup}")
    steps = record_steps(module, monkeypatch)
    trainer = fit(module, 2)
    assert trainer.global_step == 2 * NUM_BATCHES
    players = [player for player, *_ in steps]
    assert players.count("d") == 2 * NUM_BATCHES * discriminator_steps
    assert players.count("g") == 2 * NUM_BATCHES - warmup // 64


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_the_penalty_is_lazy_and_weighs_as_much_as_if_it_were_not(monkeypatch, discriminator_steps):
    module = make(
        "gradient_penalty.interval=3",
        "gradient_penalty.gamma=2",
        f"discriminator_steps={discriminator_steps}",
    )
    weight = next(module.discriminator.parameters())

    class NoLoss(AdversarialLoss):
        def discriminator(self, real, fake):
            return 0 * (real + fake)

        def generator(self, fake, real):
            return 0 * fake

    module.loss = NoLoss(None)
    monkeypatch.setattr(
        type(module.penalty), "__call__", lambda self, d, real, fake: weight.sum().expand(len(real))
    )
    steps = record_steps(module, monkeypatch)
    fit(module, 3)
    factors = [d_grads[0].mean().item() for player, _, d_grads in steps if player == "d"]
    assert factors == pytest.approx([6.0, 0.0, 0.0] * 4 * discriminator_steps)


@pytest.mark.parametrize("batch_size", [32, 64])
def test_the_moving_average_halves_a_share_in_its_half_life(batch_size):
    module = make("ema_half_life=128", "ema_rampup=0", f"loader.batch_size={batch_size}")
    start = weights(module.generator_ema.decoder).clone()
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    module.ema.update_parameters(module.generator)  # the first one copies
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    for _ in range(128 // batch_size):
        module.ema.update_parameters(module.generator)
    torch.testing.assert_close(weights(module.generator_ema.decoder), start + 1.5)


def test_buffers_are_copied_into_the_moving_average():
    module = make()
    for network in (module.generator.decoder, module.generator_ema.decoder):
        network.register_buffer("count", torch.zeros(3))
    module.generator.decoder.count += 7
    module.ema.update_parameters(module.generator)
    assert module.generator_ema.decoder.count.tolist() == [7, 7, 7]


def test_both_learning_rates_fall_to_their_end():
    ends = [f"{player}_optimizer.lr_final=0" for player in ("generator", "discriminator")]
    module = make(
        "discriminator_warmup=128", "discriminator_steps=2", "trainer.max_epochs=2", *ends
    )
    trainer = fit(module, 2)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([0.0, 0.0], abs=1e-9)


def score(module, split="validate"):
    silence_warnings()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    torch.manual_seed(0)
    data = ImageDataModule(SOURCE, module.training_config.loader, seed=0)
    (metrics,) = getattr(trainer, split)(module, data, verbose=False)
    return metrics[f"{'val' if split == 'validate' else split}/frechet_distance"]


def test_the_moving_average_is_scored_and_not_the_live_generator():
    module = make()
    first = score(module)
    torch.nn.init.zeros_(module.generator.decoder.net[0].weight)
    assert score(module) == first
    torch.nn.init.zeros_(module.generator_ema.decoder.net[0].weight)
    assert score(module) != first


def test_the_test_split_is_compared_with_its_own_real_images():
    module = make()
    fresh = copy.deepcopy(module)
    score(module)
    assert score(module, "test") == pytest.approx(score(fresh, "test"))


def test_scoring_leaves_the_networks_and_their_modes_alone():
    module = make()
    before, was_training = weights(module), module.generator.training
    assert score(module) > 0
    assert torch.equal(weights(module), before) and module.generator.training is was_training
    parts = {key.split(".")[0] for key in module.state_dict()}
    assert parts == {"vae", "generator", "discriminator", "ema", "augment_probability"}


def test_a_generator_that_has_diverged_is_said_with_the_way_out():
    module = make()
    torch.nn.init.constant_(module.generator_ema.decoder.net[0].weight, float("nan"))
    with pytest.raises(
        ValueError, match="after 0 images: fake .* The training has diverged; lower generator_opt"
    ):
        score(module)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole(monkeypatch):
    words = ["discriminator_warmup=0", "gradient_penalty.interval=1", "generator_optimizer.lr=1e-9"]
    found = []
    for num_parts in (1, 4):
        torch.manual_seed(0)
        module = make(
            *words, "discriminator_optimizer.lr=1e-9", f"gradient_accumulation={num_parts}"
        )
        steps = record_steps(module, monkeypatch)
        monkeypatch.setattr(
            module, "sample_latents", lambda num: torch.linspace(-1, 1, num * 8).reshape(num, 8)
        )
        fit(module)
        found.append(steps)
    for (player, g_whole, d_whole), (_, g_parts, d_parts) in zip(*found, strict=True):
        whole, parts = (d_whole, d_parts) if player == "d" else (g_whole, g_parts)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_gradients_are_clipped_to_their_norm():
    module = make("discriminator_warmup=0", "gradient_clip=1e-3")
    norms = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(torch.nn.utils.get_total_norm(grads).item())

    fit(module, 1, [Watch()])
    assert len(norms) == 2 * NUM_BATCHES
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-2)


def test_the_warmup_ends_early_where_the_discriminator_is_accurate():
    module = make(
        "discriminator_warmup=768", "discriminator_warmup_accuracy=0.6", "trainer.max_epochs=4"
    )
    frozen = weights(module.generator.decoder)
    fit(module, 4)
    assert module.warmup.accuracy >= 0.6
    assert 0 < module.progress.images - 64 * module.progress.generator_updates < 768
    assert not torch.equal(weights(module.generator.decoder), frozen)


def test_a_warmup_that_waits_for_accuracy_ends_at_its_limit():
    module = make(
        "discriminator_warmup=128",
        "discriminator_warmup_accuracy=0.999",
        "discriminator_optimizer.lr=1e-9",
    )
    fit(module, 1)
    assert module.progress.generator_updates == NUM_BATCHES - 2


def test_the_first_layers_rest_for_a_while():
    words = [
        "discriminator_warmup=64",
        "warm_start.freeze_layers=2",
        "warm_start.freeze_images=128",
    ]
    module = make(*words, "trainer.max_epochs=2")
    start = [p.detach().clone() for p in module.generator.decoder.parameters()]
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            now = module.generator.decoder.parameters()
            seen.append([torch.equal(a, b) for a, b in zip(start, now, strict=True)])

    fit(module, 2, [Watch()])
    assert all(seen[0])
    assert seen[1] == seen[2] == [True] * 4 + [False] * 4
    assert not any(seen[3])


def test_the_anchor_pulls_the_generator_to_reconstructions(monkeypatch):
    """Without an adversary all that is left of the generator's loss is the anchor."""

    class NoLoss(AdversarialLoss):
        def discriminator(self, real, fake):
            return 0 * (real + fake)

        def generator(self, fake, real):
            return 0 * fake

    words = [
        "discriminator_warmup=0",
        "warm_start.reconstruction_weight=100",
        "warm_start.reconstruction_images=1000000",
    ]
    module = make(
        *words, "trainer.max_epochs=10", "generator_optimizer.lr=5e-3", "gradient_penalty=none"
    )
    module.loss = NoLoss(None)
    images = SOURCE.split("train").images[:64].float() / 255
    torch.manual_seed(0)
    before = reconstruction_loss(module.vae, module.generator, images).item()
    fit(module, 10)
    torch.manual_seed(0)
    assert reconstruction_loss(module.vae, module.generator, images).item() < 0.7 * before


def test_latents_may_come_from_the_aggregate_posterior():
    module = make("warm_start.aggregate_posterior=true")
    assert module.aggregate.mean.abs().sum() > 0
    distribution = module.latent_distribution()
    assert torch.equal(distribution.mean, module.aggregate.mean)
    assert {key for key in module.state_dict() if key.startswith("aggregate")} == {
        "aggregate.mean",
        "aggregate.scale_tril",
    }


def test_both_players_see_the_augmentation_of_real_and_fake_images(monkeypatch):
    module = make(
        "augmentation=diff_augment", "augmentation.policy=[cutout]", "discriminator_warmup=0"
    )
    seen = []
    monkeypatch.setattr(
        type(module.discriminator),
        "forward",
        lambda self, images: seen.append(images) or self.head(self.trunk(images)).squeeze(1),
    )
    fit(module)
    holes = [(images == 0).flatten(1).float().mean(1) for images in seen]
    assert all((hole >= 0.25 - 1e-6).all() for hole in holes)
    assert {len(images) for images in seen} == {
        128,
        64,
    }  # real and fake at once; the penalty's and the generator's


def test_an_adaptive_probability_follows_the_discriminator_and_is_kept():
    words = [
        "augmentation=diff_augment",
        "augmentation.probability=0.5",
        "augmentation.adaptive_images=2560",
    ]
    ends = []
    for logit in (10, -10):
        module = make(*words, "augmentation.adaptive_target=0.6", "discriminator_warmup=0")
        module.discriminator.head.bias.data.fill_(logit)  # far beyond what four steps can change
        fit(module)
        ends.append(module.augment_probability().item())
        assert module.state_dict()["augment_probability.probability"].item() == ends[-1]
    assert ends == pytest.approx([0.6, 0.4], abs=1e-6)


def test_the_average_follows_faster_at_the_start():
    ema = make("ema_rampup=0.1", "ema_half_life=640").ema
    assert [ema.decay(images) for images in (0, 640, 6400, 64000)] == pytest.approx(
        [0, 0.5, 0.5**0.1, 0.5**0.1]
    )


def test_operations_are_counted_and_scoring_costs_none():
    module = make("discriminator_warmup=128", "gradient_penalty.interval=2")
    fit(module)
    spent, counts = module.progress.flops, module.flops.counts
    assert counts["discriminator True"] > counts["discriminator False"] > 0
    expected = (
        4 * counts["fakes"] + 2 * counts["discriminator True"] + 2 * counts["discriminator False"]
    )
    assert spent == expected + 2 * counts["generator False"]
    score(module)
    assert module.progress.flops == spent


def test_what_scoring_draws_changes_nothing_in_training():
    found = []
    for options in ({}, {"limit_val_batches": 1.0, "val_check_interval": 0.25}):
        torch.manual_seed(0)
        module = make("discriminator_warmup=0")
        fit(module, 1, [PerStepSeeding(0)], **options)
        found.append(weights(module.generator.decoder))
    assert torch.equal(*found)


def test_progress_survives_in_a_checkpoint():
    module, other = make("discriminator_warmup=64"), make("discriminator_warmup=64")
    fit(module)
    checkpoint = {"state_dict": other.state_dict()}
    module.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert other.progress == module.progress and other.progress.generator_updates == NUM_BATCHES - 1


def test_a_warmup_that_ends_early_leaves_the_generator_its_whole_schedule():
    words = [
        "discriminator_warmup=704",
        "discriminator_warmup_accuracy=0.6",
        "generator_optimizer.lr_final=0",
    ]
    module = make(*words, "trainer.max_epochs=4")
    trainer = fit(module, 4)
    assert module.warmup.num_images < 704
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    steps = 4 * NUM_BATCHES - module.warmup.num_images // 64
    assert module.progress.generator_updates == steps
