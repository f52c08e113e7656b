import copy
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from tests.conftest import SMALL_GAN, SMALL_NETS, compose
from vaegan.config import to_plain
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.gan.losses import AdversarialLoss
from vaegan.gan.module import GANModule
from vaegan.gan.penalties import GradientPenalty
from vaegan.gan.reconstruction import ReconstructionWeights, reconstruction_loss
from vaegan.gan.training_config import resolve_data_defaults
from vaegan.gan.warm_start import WarmStartConfig
from vaegan.stages.gan import build_scorer
from vaegan.stages.gan_components import build_components, build_discriminator
from vaegan.training.devices import silence_warnings
from vaegan.training.per_step_seeding import PerStepSeeding
from vaegan.vae.model import VAE

SOURCE = Shapes.Config(height=12, width=12, num_train=256, num_val=64, num_test=64).build()
NUM_BATCHES = 4  # batches per epoch: 256 images in batches of 64


class ZeroLoss(AdversarialLoss):
    """Adversarial loss without gradient."""

    def discriminator(self, real, fake):
        return 0 * (real + fake)

    def generator(self, fake, real):
        return 0 * fake


def make_module(*overrides):
    run = compose(*SMALL_GAN, "vae_ckpt=none", *overrides)
    run = resolve_data_defaults(run, SOURCE.image_shape, num_images=10_000)
    vae_run = compose("stage=vae", *SMALL_NETS)
    vae = VAE(SOURCE.image_shape, vae_run)
    data = ImageDataModule(SOURCE, run.loader, seed=0)
    components, _ = build_components(
        run,
        run,
        vae,
        lambda: VAE(SOURCE.image_shape, vae_run),
        data,
        seed=0,
        device=torch.device("cpu"),
    )
    scorer = build_scorer(run.feature_extractor, vae, data)
    return GANModule(components, scorer, run, {"run": to_plain(run)})


def reconstruction_losses(module, images):
    """Return the pixel loss and the feature loss of images."""
    args = module.vae, module.generator, module.hidden_units, images
    pixels = reconstruction_loss(*args, ReconstructionWeights(pixels=1.0, features=None))
    return pixels, reconstruction_loss(*args, ReconstructionWeights(pixels=None, features=1.0))


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


def all_equal(first, second):
    pairs = zip(first, second, strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def record_steps(module, monkeypatch):
    """Record (prefix, generator gradients, discriminator gradients) at each optimizer step."""
    steps = []
    original = module.apply_step

    def apply_step(optimizer, network, prefix, counts_batch):
        steps.append((prefix, gradients(module.generator.decoder), gradients(module.discriminator)))
        return original(optimizer, network, prefix, counts_batch)

    monkeypatch.setattr(module, "apply_step", apply_step)
    return steps


def test_warm_generator_equals_the_vae_decoder_bit_for_bit():
    module = make_module()
    z = torch.randn(16, 8)
    expected = module.vae.decode(z).mean
    assert torch.equal(module.generator(z), expected)
    assert torch.equal(module.generator_ema(z), expected)


def test_cold_generator_has_the_same_architecture_and_other_weights():
    cold = make_module("warm_start.generator=none")
    state, vae_state = cold.generator.decoder.state_dict(), cold.vae.decoder.state_dict()
    shapes = {key: value.shape for key, value in state.items()}
    assert shapes == {key: value.shape for key, value in vae_state.items()}
    weight_keys = [key for key in state if key.endswith("weight")]
    assert not any(torch.equal(state[key], vae_state[key]) for key in weight_keys)


def test_cold_generator_outputs_the_mean_image():
    images = make_module("warm_start.generator=none").generator(torch.randn(64, 8))
    mean = (SOURCE.split("train").images[:200].float() / 255).mean()
    torch.testing.assert_close(images.mean(), mean, rtol=0.2, atol=0)
    assert images.std(0).mean() < 0.05


@pytest.mark.parametrize("override, has_gradient", [((), True), (("saturation_logit=0",), False)])
def test_a_black_generator_gets_a_gradient(override, has_gradient):
    module = make_module(*override)
    module.generator.saturation_logit = module.training_config.saturation_logit_at(0.1)
    decoder = module.generator.decoder
    decoder.set_output(torch.full(SOURCE.image_shape, -60.0))
    module.generator(torch.randn(16, 8)).sum().neg().backward()
    norm = torch.cat([p.grad.flatten() for p in decoder.parameters()]).norm()
    assert (norm > 0.1) if has_gradient else (norm < 1e-12)


def test_saturated_pixels_have_exact_gradients_in_the_second_half(monkeypatch):
    module = make_module("discriminator_warmup=0")
    step_generator = module.step_generator
    limits = []

    def record(*args):
        limits.append(module.generator.saturation_logit)
        return step_generator(*args)

    monkeypatch.setattr(module, "step_generator", record)
    fit(module)
    assert limits == [8, 8, 0, 0]
    assert module.generator_ema.saturation_logit == 0


def test_the_reconstruction_loss_keeps_exact_gradients():
    images = SOURCE.split("train").images[:16].float() / 255
    results = []
    for saturation_logit in (0, 8):
        torch.manual_seed(0)
        module = make_module()
        module.generator.saturation_logit = saturation_logit
        module.generator.decoder.set_output(torch.full(SOURCE.image_shape, -20.0))
        reconstruction_losses(module, images)[0].backward()
        results.append(gradients(module.generator.decoder))
    assert all_equal(*results)


@pytest.mark.parametrize("loss", sorted(AdversarialLoss.choices))
@pytest.mark.parametrize("penalty", sorted(GradientPenalty.choices))
def test_no_gradient_reaches_the_other_network(monkeypatch, loss, penalty):
    lazy = [] if penalty == "none" else ["gradient_penalty.interval=1"]
    overrides = [
        "discriminator_warmup=0",
        f"adversarial_loss={loss}",
        f"gradient_penalty={penalty}",
        "warm_start.feature_weight=1",
    ]
    module = make_module(*overrides, *lazy)
    steps = record_steps(module, monkeypatch)
    vae_before = weights(module.vae)
    fit(module)
    assert [prefix for prefix, *_ in steps] == ["d", "g"] * NUM_BATCHES
    for (prefix, g_grads, d_grads), (_, g_next, d_next) in zip(steps, steps[1:], strict=False):
        if prefix == "d":  # the generator step that follows keeps the discriminator's gradients
            assert all_equal(d_grads, d_next) and not all_equal(g_grads, g_next)
        else:
            assert all_equal(g_grads, g_next) and not all_equal(d_grads, d_next)
    assert torch.equal(weights(module.vae), vae_before)
    assert all(p.requires_grad for p in module.discriminator.parameters())


def test_warmup_trains_the_discriminator_and_freezes_the_generator():
    module = make_module("discriminator_warmup=768", "trainer.max_epochs=4")  # 3 of 4 epochs
    initial_generator = weights(module.generator.decoder)
    initial_discriminator = weights(module.discriminator)
    losses = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(trainer.callback_metrics["train/d_loss"]))
            is_frozen = torch.equal(weights(module.generator.decoder), initial_generator)
            assert is_frozen is (trainer.current_epoch < 3)
            if is_frozen:
                assert torch.equal(weights(module.generator_ema.decoder), initial_generator)

    fit(module, 4, [Recorder()])
    assert not torch.equal(weights(module.discriminator), initial_discriminator)
    assert not torch.equal(weights(module.generator_ema.decoder), initial_generator)
    assert not torch.equal(weights(module.generator_ema.decoder), weights(module.generator.decoder))
    assert sum(losses[8:12]) < 0.8 * sum(losses[:4]), "the discriminator loss does not fall"


@pytest.mark.parametrize("discriminator_steps", [1, 3])
@pytest.mark.parametrize("warmup", [0, 128])
def test_global_step_counts_batches(monkeypatch, discriminator_steps, warmup):
    module = make_module(
        f"discriminator_steps={discriminator_steps}", f"discriminator_warmup={warmup}"
    )
    steps = record_steps(module, monkeypatch)
    trainer = fit(module, 2)
    assert trainer.global_step == 2 * NUM_BATCHES
    prefixes = [prefix for prefix, *_ in steps]
    assert prefixes.count("d") == 2 * NUM_BATCHES * discriminator_steps
    assert prefixes.count("g") == 2 * NUM_BATCHES - warmup // 64


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_lazy_penalty_is_multiplied_by_its_interval(monkeypatch, discriminator_steps):
    module = make_module(
        "gradient_penalty.interval=3",
        "gradient_penalty.gamma=2",
        f"discriminator_steps={discriminator_steps}",
    )
    weight = next(module.discriminator.parameters())

    module.loss = ZeroLoss(None)
    monkeypatch.setattr(
        type(module.penalty), "__call__", lambda self, d, real, fake: weight.sum().expand(len(real))
    )
    steps = record_steps(module, monkeypatch)
    fit(module, 3)
    factors = [d_grads[0].mean().item() for prefix, _, d_grads in steps if prefix == "d"]
    assert factors == pytest.approx([6.0, 0.0, 0.0] * 4 * discriminator_steps)


@pytest.mark.parametrize("batch_size", [32, 64])
def test_ema_weight_halves_after_the_half_life(batch_size):
    module = make_module("ema_half_life=128", "ema_rampup=0", f"loader.batch_size={batch_size}")
    start = weights(module.generator_ema.decoder).clone()
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    module.ema.update(module.generator, 0)  # the first update copies
    with torch.no_grad():
        for p in module.generator.decoder.parameters():
            p.add_(1.0)
    for i in range(128 // batch_size):
        module.ema.update(module.generator, 1 + i)
    torch.testing.assert_close(weights(module.generator_ema.decoder), start + 1.5)


def test_ema_copies_buffers():
    module = make_module()
    for network in (module.generator.decoder, module.generator_ema.decoder):
        network.register_buffer("count", torch.zeros(3))
    module.generator.decoder.count += 7
    module.ema.update(module.generator, 5)
    assert module.generator_ema.decoder.count.tolist() == [7, 7, 7]


def test_both_learning_rates_reach_their_final_values():
    finals = [f"{network}_optimizer.lr_final=0" for network in ("generator", "discriminator")]
    module = make_module(
        "discriminator_warmup=128", "discriminator_steps=2", "trainer.max_epochs=2", *finals
    )
    trainer = fit(module, 2)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([0.0, 0.0], abs=1e-9)


def frechet_distance(module, split="validate"):
    silence_warnings()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    torch.manual_seed(0)
    data = ImageDataModule(SOURCE, module.training_config.loader, seed=0)
    (metrics,) = getattr(trainer, split)(module, data, verbose=False)
    return metrics[f"{'val' if split == 'validate' else split}/frechet_distance"]


def test_scores_use_the_ema_generator():
    module = make_module()
    first = frechet_distance(module)
    torch.nn.init.zeros_(module.generator.decoder.net[0].weight)
    assert frechet_distance(module) == first
    torch.nn.init.zeros_(module.generator_ema.decoder.net[0].weight)
    assert frechet_distance(module) != first


def test_test_split_is_scored_against_its_own_real_images():
    module = make_module()
    fresh = copy.deepcopy(module)
    frechet_distance(module)
    assert frechet_distance(module, "test") == pytest.approx(frechet_distance(fresh, "test"))


def test_scoring_does_not_change_the_networks_or_their_modes():
    module = make_module()
    before, was_training = weights(module), module.generator.training
    assert frechet_distance(module) > 0
    assert torch.equal(weights(module), before) and module.generator.training is was_training
    prefixes = {key.split(".")[0] for key in module.state_dict()}
    assert prefixes == {"vae", "generator", "discriminator", "ema", "augment_probability"}


def test_non_finite_features_raise_an_error_with_advice():
    module = make_module()
    torch.nn.init.constant_(module.generator_ema.decoder.net[0].weight, float("nan"))
    with pytest.raises(
        ValueError, match="after 0 images: fake .* Training has diverged; lower generator_opt"
    ):
        frechet_distance(module)


def test_gradient_accumulation_gives_the_gradients_of_the_full_batch(monkeypatch):
    overrides = [
        "discriminator_warmup=0",
        "gradient_penalty.interval=1",
        "generator_optimizer.lr=1e-9",
    ]
    recorded = []
    for num_micro_batches in (1, 4):
        torch.manual_seed(0)
        module = make_module(
            *overrides,
            "discriminator_optimizer.lr=1e-9",
            f"gradient_accumulation={num_micro_batches}",
        )
        steps = record_steps(module, monkeypatch)
        monkeypatch.setattr(
            module, "sample_latents", lambda num: torch.linspace(-1, 1, num * 8).reshape(num, 8)
        )
        fit(module)
        recorded.append(steps)
    for (prefix, g_full, d_full), (_, g_micro, d_micro) in zip(*recorded, strict=True):
        full, accumulated = (d_full, d_micro) if prefix == "d" else (g_full, g_micro)
        for a, b in zip(full, accumulated, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_gradients_are_clipped_to_the_maximum_norm():
    module = make_module("discriminator_warmup=0", "gradient_clip=1e-3")
    norms = []

    class Recorder(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
            norms.append(torch.nn.utils.get_total_norm(grads).item())

    fit(module, 1, [Recorder()])
    assert len(norms) == 2 * NUM_BATCHES
    assert norms == pytest.approx([1e-3] * len(norms), rel=1e-2)


def test_warmup_ends_early_at_the_target_accuracy():
    module = make_module(
        "discriminator_warmup=768", "discriminator_warmup_accuracy=0.6", "trainer.max_epochs=4"
    )
    frozen = weights(module.generator.decoder)
    fit(module, 4)
    assert module.warmup.accuracy >= 0.6
    assert 0 < module.progress.images - 64 * module.progress.generator_updates < 768
    assert not torch.equal(weights(module.generator.decoder), frozen)


def test_warmup_ends_at_its_length_without_the_target_accuracy():
    module = make_module(
        "discriminator_warmup=128",
        "discriminator_warmup_accuracy=0.999",
        "discriminator_optimizer.lr=1e-9",
    )
    fit(module, 1)
    assert module.progress.generator_updates == NUM_BATCHES - 2


def test_first_layers_are_frozen_for_freeze_images():
    overrides = [
        "discriminator_warmup=64",
        "warm_start.freeze_layers=2",
        "warm_start.freeze_images=128",
    ]
    module = make_module(*overrides, "trainer.max_epochs=2")
    initial = [p.detach().clone() for p in module.generator.decoder.parameters()]
    is_unchanged = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            current = module.generator.decoder.parameters()
            is_unchanged.append([torch.equal(a, b) for a, b in zip(initial, current, strict=True)])

    fit(module, 2, [Recorder()])
    assert all(is_unchanged[0])
    assert is_unchanged[1] == is_unchanged[2] == [True] * 4 + [False] * 8
    assert not any(is_unchanged[3])


def test_a_feature_loss_needs_a_discriminator_with_a_trunk():
    vae = VAE(SOURCE.image_shape, compose("stage=vae", *SMALL_NETS))
    settings = SimpleNamespace(
        name="mine", spectral_norm=False, build=lambda image_shape: torch.nn.Linear(2, 1)
    )
    config = SimpleNamespace(discriminator=settings)
    message = "feature_weight must be 0, because discriminator=mine has no trunk; got 4.0"
    with pytest.raises(ValueError, match=message):
        build_discriminator(config, WarmStartConfig(feature_weight=4.0), vae, seed=0)
    discriminator, _ = build_discriminator(config, WarmStartConfig(feature_weight=0.0), vae, seed=0)
    assert isinstance(discriminator, torch.nn.Linear)


def test_hidden_units_are_those_of_emphasized_images_without_augmentation():
    words = ["emphasis.saturation=1", "emphasis.sharpness=2", "augmentation=diff_augment"]
    module = make_module(*words)
    images = SOURCE.split("train").images[:8].float() / 255
    expected = module.discriminator.trunk.hidden_units(module.emphasis(images))
    for units, value in zip(module.hidden_units(images), expected, strict=True):
        assert torch.equal(units, value)
    with torch.autocast("cpu", torch.bfloat16):
        assert {units.dtype for units in module.hidden_units(images)} == {torch.float32}


@pytest.mark.parametrize("index, key", [(0, "reconstruction_weight"), (1, "feature_weight")])
def test_reconstruction_losses_improve_reconstructions(index, key):
    """Without an adversarial loss the generator minimizes only the reconstruction loss."""
    overrides = [
        "discriminator_warmup=0",
        f"warm_start.{key}=100",
        "warm_start.reconstruction_images=1000000",
    ]
    module = make_module(
        *overrides, "trainer.max_epochs=10", "generator_optimizer.lr=5e-3", "gradient_penalty=none"
    )
    module.loss = ZeroLoss(None)
    images = SOURCE.split("train").images[:64].float() / 255
    torch.manual_seed(0)
    before = reconstruction_losses(module, images)[index].item()
    fit(module, 10)
    torch.manual_seed(0)
    assert reconstruction_losses(module, images)[index].item() < 0.7 * before


def test_latents_come_from_the_aggregate_posterior():
    module = make_module("warm_start.aggregate_posterior=true", "warm_start.bandwidth=0.5")
    assert module.aggregate.mean.abs().sum() > 0
    distribution = module.latent_distribution()
    torch.testing.assert_close(distribution.mean, module.aggregate.mean, atol=1e-4, rtol=0)
    assert len(module.aggregate.centers) == len(module.scorer.data.splits["train"])
    keys = {key.removeprefix("aggregate.") for key in module.state_dict() if "aggregate" in key}
    assert keys == {"mean", "scale_tril", "centers"}
    module = make_module("warm_start.aggregate_posterior=true", "warm_start.bandwidth=1")
    assert module.aggregate.centers is None  # as in checkpoints of earlier versions
    assert torch.equal(module.latent_distribution().mean, module.aggregate.mean)


def test_real_and_fake_images_are_augmented_in_both_steps(monkeypatch):
    module = make_module(
        "augmentation=diff_augment", "augmentation.policy=[cutout]", "discriminator_warmup=0"
    )
    inputs = []
    monkeypatch.setattr(
        type(module.discriminator),
        "forward",
        lambda self, images: inputs.append(images) or self.head(self.trunk(images)).squeeze(1),
    )
    fit(module)
    for images in inputs:
        fraction_cut = (images == 0.5).flatten(1).float().mean(1)
        assert (fraction_cut >= 0.25 - 1e-6).all()
    # 128: real and fake images in a discriminator step; 64: penalty and generator step
    assert {len(images) for images in inputs} == {128, 64}


def test_images_are_emphasized_after_their_augmentation():
    module = make_module(
        "augmentation=diff_augment", "augmentation.policy=[cutout]", "emphasis.sharpness=4"
    )
    images = torch.rand(4, *module.vae.image_shape)
    torch.manual_seed(0)
    logits = module.discriminator_logits(images)
    torch.manual_seed(0)
    augmented = module.augmentation(images, 1.0)
    assert not torch.equal(module.emphasis(augmented), augmented)
    assert torch.equal(logits, module.discriminator(module.emphasis(augmented)))


def test_a_run_with_another_emphasis_is_not_resumed():
    """Earlier versions had no emphasis; their runs with digits are resumed as before."""
    module = make_module("emphasis.saturation=1", "emphasis.sharpness=0")
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    checkpoint["vaegan"] = {"run": {"seed": 0}}
    module.on_load_checkpoint(checkpoint)
    other = make_module("emphasis.saturation=3", "emphasis.sharpness=4")
    message = r"trained with emphasis.saturation=1.0 .* but .* emphasis.saturation=3.0 emphasis.sh"
    with pytest.raises(ValueError, match=message):
        other.on_load_checkpoint(checkpoint)


def test_a_run_is_not_resumed_with_a_vae_of_another_architecture():
    module = make_module()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    bias = checkpoint["state_dict"].pop("vae.decoder.net.0.bias")
    for changed in ({}, {"vae.decoder.net.0.bias": bias[:1]}):
        checkpoint["state_dict"] |= changed
        with pytest.raises(ValueError, match="vae_ckpt is not the VAE"):
            module.on_load_checkpoint(checkpoint)


def test_adaptive_probability_follows_the_discriminator_and_is_saved():
    overrides = [
        "augmentation=diff_augment",
        "augmentation.probability=0.5",
        "augmentation.adaptive_images=2560",
    ]
    probabilities = []
    for logit in (10, -10):
        module = make_module(
            *overrides, "augmentation.adaptive_target=0.6", "discriminator_warmup=0"
        )
        module.discriminator.head.bias.data.fill_(logit)  # four steps cannot change its sign
        fit(module)
        probabilities.append(module.augment_probability().item())
        assert module.state_dict()["augment_probability.probability"].item() == probabilities[-1]
    assert probabilities == pytest.approx([0.6, 0.4], abs=1e-6)


def test_ema_rampup_shortens_the_half_life_at_the_start():
    ema = make_module("ema_rampup=0.1", "ema_half_life=640").ema
    decays = [ema.decay(num_images) for num_images in (0, 640, 6400, 64000)]
    assert decays == pytest.approx([0, 0.5, 0.5**0.1, 0.5**0.1])


def test_backward_passes_run_outside_autocast():
    """In autocast, float32 parts such as gradient penalties would be differentiated in bfloat16."""
    module = make_module("discriminator_warmup=0")
    seen = []
    for network in (module.generator.decoder, module.discriminator):
        parameter = next(network.parameters())
        parameter.register_hook(lambda grad: seen.append(torch.is_autocast_enabled("cpu")))
    fit(module, precision="bf16-mixed")
    assert len(seen) >= 8 and not any(seen)


def test_flops_count_training_but_not_scoring():
    module = make_module("discriminator_warmup=128", "gradient_penalty.interval=2")
    fit(module)
    training_flops, counts = module.progress.flops, module.flops.counts
    with_penalty = counts["discriminator, penalty=True"]
    without_penalty = counts["discriminator, penalty=False"]
    assert with_penalty > without_penalty > 0
    expected = 2 * (with_penalty + without_penalty + counts["generator, losses=()"])
    assert training_flops == expected
    frechet_distance(module)
    assert module.progress.flops == training_flops


def test_random_numbers_of_scoring_do_not_change_training():
    trained = []
    for options in ({}, {"limit_val_batches": 1.0, "val_check_interval": 0.25}):
        torch.manual_seed(0)
        module = make_module("discriminator_warmup=0")
        fit(module, 1, [PerStepSeeding(0)], **options)
        trained.append(weights(module.generator.decoder))
    assert torch.equal(*trained)


def test_checkpoint_restores_the_progress():
    module, other = make_module("discriminator_warmup=64"), make_module("discriminator_warmup=64")
    fit(module)
    checkpoint = {"state_dict": other.state_dict()}
    module.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert other.progress == module.progress and other.progress.generator_updates == NUM_BATCHES - 1


def test_generator_schedule_ends_with_training_after_an_early_warmup_end():
    overrides = [
        "discriminator_warmup=704",
        "discriminator_warmup_accuracy=0.6",
        "generator_optimizer.lr_final=0",
    ]
    module = make_module(*overrides, "trainer.max_epochs=4")
    trainer = fit(module, 4)
    assert module.warmup.num_images < 704
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    steps = 4 * NUM_BATCHES - module.warmup.num_images // 64
    assert module.progress.generator_updates == steps


def test_frozen_prior_is_computed_once(monkeypatch):
    module = make_module()
    priors = []
    original = module.vae.latent_prior
    monkeypatch.setattr(module.vae, "latent_prior", lambda: priors.append(0) or original())
    first = module.sample_latents(3)
    assert not first.equal(module.sample_latents(3)) and len(priors) == 1
