import math

import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.gan.latents import AggregatePosterior, Latents, check_num_images
from vaegan.gan.warm_start import (
    DEFAULT_BANDWIDTH,
    LAYER_CHOICES,
    NATURAL_FEATURE_WEIGHT,
    WarmStartConfig,
    init_discriminator,
    init_generator,
    named_layers,
    saved_warm_start,
)
from vaegan.networks import discriminators, encoders
from vaegan.networks.discriminators import apply_spectral_norm
from vaegan.networks.initialization import Layer
from vaegan.vae.model import VAE, VAEConfig

SHAPE = (1, 12, 12)


def make_vae(*overrides, seed=0):
    torch.manual_seed(seed)
    return VAE(SHAPE, compose("stage=vae", *SMALL_NETS, *overrides))


def build_nothing():
    raise AssertionError("a fresh VAE was built, although all layers are copied")


def make_discriminator(*overrides):
    defaults = ["stage=gan", "vae_ckpt=x", "discriminator.width=8", "discriminator.hidden_dim=32"]
    return compose(*defaults, *overrides).discriminator.build(SHAPE)


@pytest.mark.parametrize(
    "part, num_layers, copied",
    [
        ("all", 1, [0, 1, 2, 3, 4, 5]),
        ("none", 1, []),
        ("first", 1, [0]),
        ("first", 3, [0, 1, 2]),
        ("last", 2, [4, 5]),
    ],
)
def test_generator_copies_the_selected_layers(part, num_layers, copied):
    vae, fresh = make_vae(seed=1), make_vae(seed=2)
    generator, transfer = init_generator(
        vae, lambda: fresh, WarmStartConfig(generator=part, num_layers=num_layers)
    )
    names = list(named_layers(vae.decoder))
    assert transfer.copied == [names[i] for i in copied]
    assert transfer.fresh == [name for name in names if name not in transfer.copied]
    for i, name in enumerate(names):
        source = (vae if i in copied else fresh).decoder.get_submodule(name)
        assert torch.equal(generator.decoder.get_submodule(name).weight, source.weight)
    expected = sum(
        p.numel() for name in transfer.copied for p in vae.decoder.get_submodule(name).parameters()
    )
    assert transfer.num_copied == expected
    assert transfer.num_weights == sum(p.numel() for p in vae.decoder.parameters())


def test_transfer_describes_the_copied_layers():
    vae = make_vae()
    _, transfer = init_generator(
        vae, lambda: make_vae(seed=1), WarmStartConfig(generator="first", num_layers=2)
    )
    assert str(transfer).startswith("generator: 2 of 6 layers (")
    assert str(transfer).endswith(
        " weights) from the VAE's decoder; fresh: net.5, net.8, net.11, net.13"
    )


def test_generator_shares_no_weights_with_the_vae():
    vae = make_vae()
    generator, _ = init_generator(vae, build_nothing, WarmStartConfig())
    torch.nn.init.zeros_(generator.decoder.net[0].weight)
    assert vae.decoder.net[0].weight.abs().sum() > 0


@pytest.mark.parametrize("part", LAYER_CHOICES)
def test_generator_of_a_trained_vae_is_in_train_mode(part):
    generator, _ = init_generator(make_vae().eval(), make_vae, WarmStartConfig(generator=part))
    assert all(module.training for module in generator.decoder.modules())


def perturb(network):
    """Add noise to all weights, so that no layer is all zeros."""
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.mark.parametrize("network", ["conv", "resnet"])
@pytest.mark.parametrize("activation", ["silu", "leaky_relu"])
def test_discriminator_copies_the_encoder_trunk(network, activation):
    vae = make_vae(f"encoder={network}", f"encoder.activation={activation}")
    perturb(vae.encoder)
    overrides = [f"discriminator={network}", f"discriminator.activation={activation}"]
    discriminator = make_discriminator(*overrides)
    head = discriminator.head.weight.clone()
    transfer = init_discriminator(vae, discriminator, WarmStartConfig(discriminator=True))
    names = list(named_layers(discriminator))
    assert transfer.copied == names[:-1] and transfer.fresh == ["head"] == names[-1:]
    trunk, expected = discriminator.trunk.state_dict(), vae.encoder.trunk.state_dict()
    assert trunk.keys() == expected.keys()
    assert all(torch.equal(trunk[key], expected[key]) for key in trunk)
    assert torch.equal(discriminator.head.weight, head)
    images = torch.rand(3, *SHAPE)
    assert torch.equal(discriminator.trunk(images), vae.encoder.trunk(images))


@pytest.mark.parametrize(
    "encoder, discriminator, message",
    [
        ("conv", ["discriminator.activation=leaky_relu"], "activation=leaky_relu, encoder activ"),
        ("conv", ["discriminator.padding=replicate"], "padding=replicate, encoder padding=zeros"),
        ("conv", ["discriminator.width=4"], r"has widths=\[2, 4\], encoder widths=\[4, 8\]"),
        ("conv", ["discriminator=resnet"], "has network=resnet, encoder network=conv"),
        (
            "resnet",
            ["discriminator=resnet", "discriminator.normalization=group"],
            "has normalization=group, encoder normalization=none",
        ),
        (
            "resnet",
            ["discriminator=resnet", "discriminator.num_blocks=2"],
            "has num_blocks=2, encoder num_blocks=1",
        ),
    ],
)
def test_discriminator_with_another_architecture_is_rejected(encoder, discriminator, message):
    built = make_discriminator(*discriminator)
    before = [p.clone() for p in built.parameters()]
    expected = f"discriminator cannot start from the VAE's encoder: .*{message}.*; use the same"
    with pytest.raises(ValueError, match=expected):
        vae = make_vae(f"encoder={encoder}")
        init_discriminator(vae, built, WarmStartConfig(discriminator=True))
    assert all(torch.equal(a, b) for a, b in zip(before, built.parameters(), strict=True))


def test_mlp_with_another_depth_is_rejected():
    encoder = encoders.Mlp.Config(hidden_dims=[32, 32])
    vae = VAE(SHAPE, VAEConfig(latent_dim=8, encoder=encoder))
    discriminator = discriminators.Mlp.Config(hidden_dims=[32, 32, 32]).build(SHAPE)
    with pytest.raises(ValueError, match=r"hidden_dims=\[32, 32, 32\], encoder hidden_dims=\[32"):
        init_discriminator(vae, discriminator, WarmStartConfig(discriminator=True))


def test_network_without_a_trunk_is_rejected():
    discriminator = make_discriminator()
    discriminator.trunk = torch.nn.Identity()
    with pytest.raises(ValueError, match="one of the two networks has no trunk"):
        init_discriminator(make_vae(), discriminator, WarmStartConfig(discriminator=True))


def test_spectral_norm_of_copied_weights_is_converged():
    vae = make_vae()
    perturb(vae.encoder)
    discriminator = make_discriminator("discriminator.spectral_norm=true")
    init_discriminator(vae, discriminator, WarmStartConfig(discriminator=True))
    apply_spectral_norm(discriminator)
    for layer in discriminator.eval().trunk.layers:
        if isinstance(layer, Layer):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2) < 1.15


@pytest.mark.parametrize(
    "config, overrides, copied",
    [
        (WarmStartConfig(), [], 3),
        (WarmStartConfig(), ["discriminator.activation=leaky_relu"], 0),
        (WarmStartConfig(), ["discriminator=resnet"], 0),
        (WarmStartConfig(generator="none"), [], 0),
        (WarmStartConfig(discriminator=False), [], 0),
    ],
)
def test_discriminator_default_copies_only_an_equal_architecture(config, overrides, copied):
    discriminator = make_discriminator(*overrides)
    before = [p.clone() for p in discriminator.parameters()]
    transfer = init_discriminator(make_vae(seed=3), discriminator, config)
    assert len(transfer.copied) == copied
    assert (str(transfer) == "discriminator: fresh weights") is (copied == 0)
    unchanged = [torch.equal(a, b) for a, b in zip(before, discriminator.parameters(), strict=True)]
    assert all(unchanged) is (copied == 0)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"generator": "half"}, "generator must be one of all, first, last, none"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"freeze_layers": -1}, "freeze_layers must be at least 0"),
        (
            {"freeze_layers": 2},
            r"freeze_images must be positive with .*, else 0 \(freeze_layers=2\); got 0",
        ),
        (
            {"freeze_images": 9},
            r"freeze_images must be positive with .*, else 0 \(freeze_layers=0\); got 9",
        ),
        ({"bandwidth": 0.0}, r"bandwidth must be in \(0, 1\], or null; got 0.0"),
        ({"bandwidth": 1.5}, r"bandwidth must be in \(0, 1\], or null; got 1.5"),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight must be at least 0"),
        ({"feature_weight": -1.0}, "feature_weight must be at least 0 and finite, or null; got"),
        ({"feature_weight": math.inf}, "feature_weight must be at least 0 and finite, or null"),
        ({"reconstruction_images": 0}, "reconstruction_images must be at least 1, or null"),
    ],
)
def test_invalid_config_is_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        WarmStartConfig(**values)


@pytest.mark.parametrize(
    "values", [{"generator": "last", "num_layers": 7}, {"freeze_layers": 7, "freeze_images": 9}]
)
def test_more_layers_than_the_decoder_has_are_rejected(values):
    with pytest.raises(
        ValueError,
        match=r"warm_start.*_layers must be at most 6, the number of .* \(net.0, net.2, net.5",
    ):
        init_generator(make_vae(), build_nothing, WarmStartConfig(**values))


def test_reconstruction_weights_fall_linearly_to_zero():
    config = WarmStartConfig(reconstruction_weight=2, feature_weight=8, reconstruction_images=100)
    weights = [config.reconstruction_weights_at(n) for n in (0, 50, 100, 150)]
    assert weights == [(2, 8), (1, 4), (None, None), (None, None)]


def test_aggregate_posterior_has_the_moments_of_the_latents():
    vae = make_vae("likelihood=gaussian")
    images = torch.rand(4000, *SHAPE)
    aggregate = AggregatePosterior(8)
    aggregate.fit(vae, images.split(500), bandwidth=1.0)
    with torch.no_grad():
        posterior = vae.encode(vae.likelihood.target(images))
        mean = posterior.mean.mean(0)
        covariance = torch.cov(posterior.mean.T) + posterior.variance.mean(0).diag()
    fitted = aggregate()
    torch.testing.assert_close(fitted.mean, mean, rtol=0, atol=0.1)
    torch.testing.assert_close(fitted.covariance_matrix, covariance, rtol=0, atol=0.15)
    assert Latents(vae, aggregate)().sample((5,)).shape == (5, 8)
    assert Latents(vae, None)().mean.tolist() == [0.0] * 8


def test_aggregate_posterior_rejects_too_few_images():
    with pytest.raises(
        ValueError, match="number of training images must be above latent_dim=8 .*; got 8"
    ):
        check_num_images(8, latent_dim=8)


@pytest.mark.parametrize(
    "generator, is_natural, images_per_dim, aggregate_posterior, weights",
    [
        ("all", True, 10, True, (0.1, NATURAL_FEATURE_WEIGHT)),
        ("all", True, 3, False, (0.1, NATURAL_FEATURE_WEIGHT)),
        ("all", False, 10, False, (0.0, 0.0)),
        ("none", True, 10, False, (0.0, 0.0)),
    ],
)
def test_natural_images_with_a_warm_start_use_more_of_the_vae(
    generator, is_natural, images_per_dim, aggregate_posterior, weights
):
    config = WarmStartConfig(generator=generator).resolve_defaults(
        is_natural, images_per_dim, is_emphasized=False
    )
    assert config.aggregate_posterior is aggregate_posterior
    assert config.bandwidth == (DEFAULT_BANDWIDTH if aggregate_posterior else None)
    assert (config.reconstruction_weight, config.feature_weight) == weights


def test_a_discriminator_with_emphasis_starts_from_fresh_weights():
    config = WarmStartConfig()
    resolved = [config.resolve_defaults(True, 10, is_emphasized) for is_emphasized in (True, False)]
    assert [config.discriminator for config in resolved] == [False, None]


def test_given_values_are_not_replaced_by_defaults():
    given = WarmStartConfig(
        discriminator=True,
        aggregate_posterior=False,
        reconstruction_weight=0.0,
        feature_weight=2.0,
    )
    assert given.resolve_defaults(True, 10, is_emphasized=True) == given


def test_a_bandwidth_needs_an_aggregate_posterior():
    config = WarmStartConfig(bandwidth=0.3)
    assert config.resolve_defaults(True, 10, is_emphasized=False).bandwidth == 0.3
    message = "bandwidth must be null without warm_start.aggregate_posterior=true; got 0.3"
    with pytest.raises(ValueError, match=message):
        config.resolve_defaults(False, 10, is_emphasized=False)


def test_saved_settings_are_checked():
    assert saved_warm_start({"warm_start": None}).bandwidth is None
    with pytest.raises(ValueError, match="warm_start.bandwidth"):
        saved_warm_start({"warm_start": {"bandwidth": 2.0}})
    with pytest.raises(ValueError, match="feature_weight must be at least 0"):
        saved_warm_start({"warm_start": {"feature_weight": -1.0}})


def test_gans_of_earlier_versions_keep_their_settings():
    earlier = saved_warm_start({"warm_start": {"aggregate_posterior": True}})
    config = WarmStartConfig().resolve_defaults(True, 10, is_emphasized=False, earlier=earlier)
    assert (config.bandwidth, config.feature_weight) == (1.0, 0.0)
    earlier = saved_warm_start({"warm_start": {"feature_weight": 2.0}})
    for generator, expected in (("all", 2.0), ("none", 0.0)):
        config = WarmStartConfig(generator=generator)
        config = config.resolve_defaults(True, 10, is_emphasized=False, earlier=earlier)
        assert config.feature_weight == expected


def test_reconstruction_weights_are_constant_by_default():
    config = WarmStartConfig(reconstruction_weight=2.0)
    assert config.reconstruction_weights_at(10**9) == (2.0, None)
