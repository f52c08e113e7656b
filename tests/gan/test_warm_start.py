import pytest
import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.gan.latents import AggregatePosterior, Latents
from vaegan.gan.warm_start import (
    WarmStartConfig,
    copy_layers,
    layers,
    start_discriminator,
    start_generator,
)
from vaegan.vae.model import VAE

SHAPE = (1, 12, 12)


def make_vae(*overrides, seed=0):
    torch.manual_seed(seed)
    return VAE(compose("stage=vae", *SMALL_NETS, *overrides), SHAPE)


def make_discriminator(*overrides):
    words = ["stage=gan", "vae_ckpt=x", "discriminator.width=8", "discriminator.hidden_dim=32"]
    return compose(*words, *overrides).discriminator.build(SHAPE)


@pytest.mark.parametrize(
    "part, num, copied",
    [
        ("all", 1, [0, 1, 2, 3]),
        ("none", 1, []),
        ("first", 1, [0]),
        ("first", 3, [0, 1, 2]),
        ("last", 2, [2, 3]),
    ],
)
def test_the_generator_takes_over_the_layers_that_are_asked_for(part, num, copied):
    vae, fresh = make_vae(seed=1), make_vae(seed=2)
    generator, transfer = start_generator(
        vae, fresh, WarmStartConfig(generator=part, num_layers=num)
    )
    names = list(layers(vae.decoder))
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


def test_a_report_says_what_was_copied():
    vae = make_vae()
    _, transfer = start_generator(
        vae, make_vae(seed=1), WarmStartConfig(generator="first", num_layers=2)
    )
    assert str(transfer).startswith("generator: 2 of 4 layers (")
    assert str(transfer).endswith("of the weights) from the VAE's decoder; fresh: net.5, net.7")


def test_the_generator_shares_no_weight_with_the_vae():
    vae = make_vae()
    generator, _ = start_generator(vae, make_vae(seed=1), WarmStartConfig())
    torch.nn.init.zeros_(generator.decoder.net[0].weight)
    assert vae.decoder.net[0].weight.abs().sum() > 0


@pytest.mark.parametrize("network, sizes", [("conv", []), ("resnet", ["discriminator=resnet"])])
@pytest.mark.parametrize("spectral_norm", ["false", "true"])
@pytest.mark.parametrize("activation", ["silu", "leaky_relu"])
def test_a_discriminator_starts_with_the_encoders_layers(network, sizes, spectral_norm, activation):
    vae = make_vae(f"encoder={network}", f"encoder.activation={activation}")
    for parameter in vae.encoder.parameters():
        parameter.data.add_(
            torch.randn_like(parameter), alpha=0.1
        )  # as after training: no layer is all zeros
    words = [
        *sizes,
        f"discriminator.activation={activation}",
        f"discriminator.spectral_norm={spectral_norm}",
    ]
    discriminator = make_discriminator(*words).eval()
    before = [layer.bias.clone() for layer in layers(discriminator).values()]
    transfer = start_discriminator(vae, discriminator, WarmStartConfig(discriminator=True))
    names = list(layers(vae.encoder))
    assert transfer.copied == names[:-1] and transfer.fresh == names[-1:]
    if spectral_norm == "false":
        for name in names[:-1]:
            ours, theirs = discriminator.get_submodule(name), vae.encoder.get_submodule(name)
            assert torch.equal(ours.weight, theirs.weight)
    output = discriminator.get_submodule(names[-1])
    assert output.weight.shape[0] == 1 and torch.equal(output.bias, before[-1])
    assert discriminator(torch.rand(3, *SHAPE)).isfinite().all()


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["discriminator.activation=leaky_relu"],
            "between its layers are Flatten, LeakyReLU, and there Flatten, SiLU; choose the same activation for",
        ),
        (
            ["discriminator.width=4"],
            r"net.0 has weight \(4, 1, 4, 4\) and bias \(4,\), there weight \(8, 1, 4, 4\)",
        ),
        (["discriminator=resnet"], "net.0 has weight .*no such layer"),
    ],
)
def test_a_discriminator_of_another_architecture_is_refused(words, message):
    discriminator = make_discriminator(*words)
    before = [p.clone() for p in discriminator.parameters()]
    with pytest.raises(
        ValueError, match=f"discriminator cannot start from the VAE's encoder: .*{message}"
    ):
        start_discriminator(make_vae(), discriminator, WarmStartConfig(discriminator=True))
    assert all(torch.equal(a, b) for a, b in zip(before, discriminator.parameters(), strict=True))


@pytest.mark.parametrize(
    "encoder, discriminator",
    [
        (
            ["encoder=mlp", "encoder.hidden_dims=[32,32]"],
            ["discriminator=mlp", "discriminator.hidden_dims=[32,32,32]"],
        ),
        (["encoder=resnet"], ["discriminator=resnet", "discriminator.normalization=group"]),
    ],
)
def test_a_discriminator_of_another_depth_or_normalization_is_refused(encoder, discriminator):
    vae = VAE(
        compose("stage=vae", "latent_dim=8", "decoder.width=8", "decoder.hidden_dim=32", *encoder),
        SHAPE,
    )
    built = compose("stage=gan", "vae_ckpt=x", *discriminator).discriminator.build(SHAPE)
    with pytest.raises(
        ValueError, match="its layers are net.*, and there net.*; choose the same depth and normal"
    ):
        start_discriminator(vae, built, WarmStartConfig(discriminator=True))


def test_a_spectrally_normalised_discriminator_starts_normalised():
    vae = make_vae()
    for parameter in vae.encoder.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.5)
    discriminator = make_discriminator("discriminator.spectral_norm=true")
    transfer = start_discriminator(vae, discriminator, WarmStartConfig(discriminator=True))
    discriminator.eval()
    for name in transfer.copied:
        largest = torch.linalg.matrix_norm(discriminator.get_submodule(name).weight.flatten(1), 2)
        assert largest < 1.15


@pytest.mark.parametrize(
    "config, words, copied",
    [
        (WarmStartConfig(), [], 3),
        (WarmStartConfig(), ["discriminator.activation=leaky_relu"], 0),
        (WarmStartConfig(), ["discriminator=resnet"], 0),
        (WarmStartConfig(generator="none"), [], 0),
        (WarmStartConfig(discriminator=False), [], 0),
    ],
)
def test_unless_told_otherwise_the_discriminator_starts_warm_where_it_can_and_the_report_says_so(
    config, words, copied
):
    discriminator = make_discriminator(*words)
    before = [p.clone() for p in discriminator.parameters()]
    transfer = start_discriminator(make_vae(seed=3), discriminator, config)
    assert len(transfer.copied) == copied
    assert (str(transfer) == "discriminator: fresh weights") is (copied == 0)
    same = [torch.equal(a, b) for a, b in zip(before, discriminator.parameters(), strict=True)]
    assert all(same) is (copied == 0)


def test_layers_of_another_shape_are_never_copied_in_silence():
    source, target = torch.nn.Linear(3, 4), torch.nn.Linear(3, 5)
    with pytest.raises(
        ValueError,
        match=r"a cannot start from b: 0 has weight \(5, 3\) and bias \(5,\), there weight",
    ):
        copy_layers(torch.nn.Sequential(source), torch.nn.Sequential(target), ["0"], ("a", "b"))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"generator": "half"}, "generator must be one of all, first, last, none"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"freeze_layers": -1}, "freeze_layers must be at least 0"),
        (
            {"freeze_layers": 2},
            "freeze_images must be positive with freeze_layers=2, and 0 with none; got 0",
        ),
        (
            {"freeze_images": 9},
            "freeze_images must be positive with freeze_layers=0, and 0 with none; got 9",
        ),
        ({"reconstruction_weight": -1.0}, "reconstruction_weight must be at least 0"),
        ({"reconstruction_images": 0}, "reconstruction_images must be at least 1"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        WarmStartConfig(**values)


@pytest.mark.parametrize(
    "values", [{"generator": "last", "num_layers": 5}, {"freeze_layers": 5, "freeze_images": 9}]
)
def test_more_layers_than_there_are_are_refused(values):
    with pytest.raises(
        ValueError,
        match=r"warm_start.*_layers must be at most the decoder's 4 \(net.0, net.2, net.5",
    ):
        start_generator(make_vae(), make_vae(), WarmStartConfig(**values))


def test_the_anchor_falls_linearly_to_nothing():
    config = WarmStartConfig(reconstruction_weight=2.0, reconstruction_images=100)
    assert [config.reconstruction_weight_at(n) for n in (0, 50, 100, 150)] == [2.0, 1.0, 0.0, 0.0]


def test_the_aggregate_posterior_has_the_moments_of_the_latents():
    vae = make_vae("likelihood=gaussian")
    images = torch.rand(4000, *SHAPE)
    aggregate = AggregatePosterior(8)
    aggregate.fit(vae, images)
    with torch.no_grad():
        posterior = vae.encode(vae.likelihood.target(images))
        mean = posterior.mean.mean(0)
        covariance = torch.cov(posterior.mean.T) + posterior.variance.mean(0).diag()
    found = aggregate()
    torch.testing.assert_close(found.mean, mean, rtol=0, atol=0.1)
    torch.testing.assert_close(found.covariance_matrix, covariance, rtol=0, atol=0.15)
    assert Latents(vae, aggregate)().sample((5,)).shape == (5, 8)
    assert Latents(vae, None)().mean.tolist() == [0.0] * 8


def test_too_few_images_for_the_aggregate_posterior_are_refused():
    with pytest.raises(
        ValueError, match="number of training images must be above latent_dim; got 8"
    ):
        AggregatePosterior(8).fit(make_vae(), torch.rand(8, *SHAPE))
