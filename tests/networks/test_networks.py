"""Tests of all registered encoders, decoders and discriminators."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import silu

from vaegan.gan.penalties import squared_gradient
from vaegan.networks.blocks import (
    ResidualBlock,
    SkipExcitation,
    conv_widths,
    hidden_layers,
    upsample,
)
from vaegan.networks.decoders import Decoder
from vaegan.networks.discriminators import Discriminator, apply_spectral_norm
from vaegan.networks.encoders import Encoder
from vaegan.networks.initialization import Layer, he_init, output_layer
from vaegan.networks.sizes import RESAMPLINGS, ConvSizes, MlpSizes, ResnetSizes, resolve_padding

SHAPES = [(1, 28, 28), (3, 32, 64), (2, 13, 21), (4, 4, 4), (1, 5, 31)]
NETWORKS = [("mlp", {})]
NETWORKS += [(name, {"resampling": r}) for name in ("conv", "resnet") for r in RESAMPLINGS]
NETWORKS += [(name, {"padding": "replicate"}) for name in ("conv", "resnet")]
DECODERS = [*NETWORKS, ("conv", {"skip_excitation": True})]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name, settings", NETWORKS)
def test_encoders_map_images_to_features(name, settings, shape):
    encoder = Encoder.choices[name].Config(**settings).build(shape, num_features=6)
    assert encoder(torch.rand(3, *shape)).shape == (3, 6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name, settings", DECODERS)
def test_decoders_map_latents_to_parameters(name, settings, shape):
    decoder = Decoder.choices[name].Config(**settings).build(latent_dim=5, param_shape=shape)
    assert decoder(torch.randn(3, 5)).shape == (3, *shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name, settings", NETWORKS)
def test_discriminator_logit_depends_on_its_own_image_only(name, settings, shape):
    discriminator = Discriminator.choices[name].Config(**settings).build(shape)
    images = torch.rand(4, *shape)
    logits = discriminator(images)
    assert logits.shape == (4,)
    torch.testing.assert_close(discriminator(images[1:2]), logits[1:2])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name, settings", NETWORKS)
def test_hidden_units_are_those_of_the_forward_pass(name, settings, shape):
    trunk = Discriminator.choices[name].Config(**settings).build(shape).trunk
    weighted = [layer for layer in trunk.layers if any(True for _ in layer.parameters())]
    inputs = []
    for layer in weighted:
        layer.register_forward_pre_hook(lambda layer, args: inputs.append(args[0]))
    images = torch.rand(3, *shape)
    expected = [trunk(images), *inputs[1:]]
    units = trunk.hidden_units(images)
    assert len(units) == len(weighted)
    for layer, value in zip([units[-1], *units[:-1]], expected, strict=True):
        torch.testing.assert_close(layer, value)


@pytest.mark.parametrize("base", [Encoder, Decoder, Discriminator])
def test_no_network_has_batch_norm(base):
    arguments = {
        Encoder: ((1, 28, 28), 4),
        Decoder: (4, (1, 28, 28)),
        Discriminator: ((1, 28, 28),),
    }
    for choice in base.choices.values():
        layers = choice.Config().build(*arguments[base]).modules()
        assert not [layer for layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    "shape, num_halvings",
    [
        ((1, 28, 28), 2),
        ((1, 4, 4), 2),
        ((1, 32, 32), 3),
        ((3, 64, 128), 4),
        ((1, 12, 64), 2),
        ((1, 31, 63), 2),
    ],
)
def test_images_are_halved_until_the_shorter_side_is_less_than_8(shape, num_halvings):
    strided = Encoder.choices["conv"].Config(width=8, max_width=20, resampling="strided")
    assert conv_widths(shape, strided) == [min(8 << i, 20) for i in range(num_halvings)]
    bilinear = Encoder.choices["conv"].Config(width=8, max_width=20, resampling="bilinear")
    assert conv_widths(shape, bilinear) == [min(4 << i, 20) for i in range(num_halvings)]


@pytest.mark.parametrize("base", [Encoder, Decoder, Discriminator])
def test_images_smaller_than_4_pixels_raise(base):
    shape = (1, 3, 28)
    arguments = {Encoder: (shape, 4), Decoder: (4, shape), Discriminator: (shape,)}[base]
    message = rf"{base.group}=conv .*at least 4; got 3 x 28. .* choose {base.group}=mlp"
    with pytest.raises(ValueError, match=message):
        base.choices["conv"].Config().build(*arguments)
    assert base.choices["mlp"].Config().build(*arguments)


def test_he_initialization_keeps_the_second_moment_of_the_signal():
    torch.manual_seed(0)
    layers = [nn.Linear(512, 512), upsample(64, 64)]
    inputs = [torch.randn(256, 512), torch.randn(16, 64, 16, 16)]
    for layer, x in zip(layers, inputs, strict=True):
        he_init(nn.Sequential(layer, nn.Linear(1, 1)))
        output = layer(x.relu())
        if not isinstance(layer, nn.Linear):
            output = output[..., 1:-1, 1:-1]  # border pixels have fewer inputs
        assert output.square().mean().item() == pytest.approx(1, rel=0.1)  # as x before the ReLU
        assert (layer.bias == 0).all()


def test_a_bilinear_decoder_has_a_hidden_convolution_at_the_full_size():
    decoder = Decoder.choices["conv"].Config(width=8, resampling="bilinear").build(4, (3, 32, 32))
    shapes = []
    for layer in decoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: shapes.append(output.shape[1:]))
    decoder(torch.randn(1, 4))
    assert [tuple(shape) for shape in shapes if shape[1] == 32] == [(4, 32, 32), (3, 32, 32)]


def test_output_layers_start_small():
    for base, arguments in (
        (Encoder, ((1, 28, 28), 4)),
        (Decoder, (4, (1, 28, 28))),
        (Discriminator, ((1, 28, 28),)),
    ):
        for choice in base.choices.values():
            network = choice.Config().build(*arguments)
            x = torch.randn(64, 4) if base is Decoder else torch.rand(64, 1, 28, 28)
            assert network(x).std() < 0.5


@pytest.mark.parametrize("key", ["width", "max_width", "hidden_dim"])
def test_invalid_sizes_raise(key):
    assert issubclass(Encoder.choices["conv"].Config, ConvSizes)
    or_null = ", or null" * (key == "width")
    with pytest.raises(ValueError, match=f"{key} must be at least 1{or_null}; got 0"):
        Encoder.choices["conv"].Config(**{key: 0})


def test_invalid_hidden_dims_raise():
    assert issubclass(Encoder.choices["mlp"].Config, MlpSizes)
    with pytest.raises(ValueError, match="hidden_dims must be a list of numbers of at least 1"):
        Encoder.choices["mlp"].Config(hidden_dims=[64, 0])


@pytest.mark.parametrize("base", [Encoder, Decoder])
@pytest.mark.parametrize(
    "activation, layer", [("silu", nn.SiLU), ("tanh", nn.Tanh), ("relu", nn.ReLU), ("glu", nn.GLU)]
)
def test_mlps_have_the_configured_activation(base, activation, layer):
    arguments = ((1, 4, 4), 6) if base is Encoder else (6, (1, 4, 4))
    config = base.choices["mlp"].Config(hidden_dims=[20, 30], activation=activation)
    network = config.build(*arguments)
    assert [type(module) for module in network.modules()].count(layer) == 2
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    widths = [module.weight.shape[0] for module in linear]
    assert widths[:2] == ([40, 60] if activation == "glu" else [20, 30])


def test_gated_layers_multiply_linear_units_by_sigmoid_gates():
    """(A x + b) * sigmoid(C x + d), as in Tomczak & Welling 2018."""
    first, gate = hidden_layers([5, 7], "glu")
    x = torch.randn(4, 5)
    value, gate_logit = first(x).chunk(2, 1)
    torch.testing.assert_close(gate(first(x)), value * gate_logit.sigmoid())


def test_unknown_activation_of_an_mlp_raises():
    message = "activation must be one of silu, relu, tanh, glu; got 'gelu'"
    with pytest.raises(ValueError, match=message):
        Encoder.choices["mlp"].Config(activation="gelu")


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_zeros_beyond_the_border_change_the_output_near_it(name, padding):
    """Features that are equal at all positions give equal pixels only with replicate padding."""
    decoder = Decoder.choices[name].Config(padding=padding).build(4, (3, 32, 48))
    layers = list(decoder.net)
    (start,) = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Unflatten)]
    for layer in decoder.modules():  # blocks start as the identity
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    features = torch.randn(1, layers[start].unflattened_size[0], 1, 1).expand(-1, -1, 4, 6)
    pixels = nn.Sequential(*layers[start + 1 :])(features)
    assert pixels.shape == (1, 3, 32, 48)
    ranges = pixels.amax((2, 3)) - pixels.amin((2, 3))
    is_uniform = bool((ranges < 1e-5 * pixels.abs().amax()).all())
    assert is_uniform == (padding == "replicate")


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize("base", [Encoder, Discriminator])
def test_zeros_beyond_the_border_change_the_features_near_it(base, name, padding):
    """An image of one color has equal features at all positions only with replicate padding."""
    args = ((3, 32, 48), 4) if base is Encoder else ((3, 32, 48),)
    network = base.choices[name].Config(padding=padding).build(*args)
    for layer in network.modules():  # blocks start as the identity
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)
    layers = list(network.trunk.layers)
    (end,) = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten)]
    features = nn.Sequential(*layers[:end])(torch.rand(1, 3, 1, 1).expand(-1, -1, 32, 48))
    assert features.shape[2:] == (4, 6)
    ranges = features.amax((2, 3)) - features.amin((2, 3))
    is_uniform = bool((ranges < 1e-5 * features.abs().amax()).all())
    assert is_uniform == (padding == "replicate")


def test_replicate_padding_needs_bilinear_resampling():
    for base in (Encoder, Decoder, Discriminator):
        for name in ("conv", "resnet"):
            with pytest.raises(ValueError, match="padding must be zeros with resampling=strided"):
                base.choices[name].Config(padding="replicate", resampling="strided")
    with pytest.raises(ValueError, match="padding must be one of zeros, replicate, or null; got"):
        Decoder.choices["conv"].Config(padding="reflect")


@pytest.mark.parametrize("normalization", ["none", "group"])
def test_residual_blocks_start_as_the_identity(normalization):
    block = ResidualBlock(12, ResnetSizes(normalization=normalization))
    he_init(nn.Sequential(block, nn.Linear(1, 1)))
    x = torch.randn(2, 12, 5, 6)
    assert torch.equal(block(x), x)
    norms = [layer for layer in block.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == (2 if normalization == "group" else 0)


@pytest.mark.parametrize("base", [Encoder, Decoder, Discriminator])
@pytest.mark.parametrize(
    "normalization, resampling, factor",
    [("none", "strided", 6**-0.5), ("none", "bilinear", 4**-0.5), ("group", "bilinear", 1)],
)
def test_fixup_scales_the_first_convolution_of_blocks_without_a_norm(
    base, normalization, resampling, factor
):
    """The factor is L^(-1/2), with L = 2 blocks * 3 sizes (strided) or 2 sizes (bilinear)."""
    shape = (1, 28, 28)
    arguments = {Encoder: (shape, 6), Decoder: (6, shape), Discriminator: (shape,)}[base]
    config = base.choices["resnet"].Config(
        num_blocks=2, normalization=normalization, resampling=resampling
    )
    network = config.build(*arguments)
    for block in (module for module in network.modules() if isinstance(module, ResidualBlock)):
        he_std = math.sqrt(2 / (9 * block.first.in_channels))
        assert block.first.weight.std().item() == pytest.approx(factor * he_std, rel=0.05)
        assert block.last.weight.count_nonzero() == 0


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_discriminator_has_the_same_layers_as_an_encoder(name):
    """The same seed and activation give the same function."""
    torch.manual_seed(1)
    encoder = Encoder.choices[name].Config().build((1, 28, 28), num_features=1)
    torch.manual_seed(1)
    discriminator = Discriminator.choices[name].Config(activation="silu").build((1, 28, 28))
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(discriminator(x), encoder(x).squeeze(1))


TRUNKS = [(Discriminator, name, []) for name in sorted(Discriminator.choices)]
TRUNKS += [(Encoder, name, [8]) for name in ("conv", "resnet")]


@pytest.mark.parametrize("base, name, sizes", TRUNKS)
@pytest.mark.parametrize("activation, layer", [("leaky_relu", nn.LeakyReLU), ("silu", nn.SiLU)])
def test_trunks_have_the_configured_activation(base, name, sizes, activation, layer):
    network = base.choices[name].Config(activation=activation).build((1, 8, 8), *sizes)
    activations = {
        type(module)
        for module in network.modules()
        if type(module).__module__ == nn.SiLU.__module__
    }
    assert activations == {layer}


@pytest.mark.parametrize("base, name, sizes", TRUNKS)
def test_unknown_activation_of_a_trunk_raises(base, name, sizes):
    with pytest.raises(ValueError, match="activation must be one of silu, leaky_relu; got 'gelu'"):
        base.choices[name].Config(activation="gelu")


@pytest.fixture(params=sorted(Discriminator.choices))
def normalized(request):
    """Build a small discriminator with spectral normalization."""
    torch.manual_seed(0)
    config = Discriminator.choices[request.param].Config()
    for key, value in {"width": 8, "hidden_dim": 32, "hidden_dims": [32, 32]}.items():
        if key in vars(config):
            setattr(config, key, value)
    network = config.build((1, 12, 12))
    apply_spectral_norm(network)
    return network


def test_spectral_norm_keeps_the_largest_singular_value_of_every_layer_at_one(normalized):
    layers = [module for module in normalized.modules() if isinstance(module, Layer)]
    for _ in range(50):
        normalized(torch.rand(2, 1, 12, 12))  # each forward pass is a step of power iteration
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item()
        assert largest == pytest.approx(1, rel=0.03)
    originals = [name for name, _ in normalized.named_parameters() if name.endswith("original")]
    assert len(layers) == len(originals)


def test_spectrally_normalized_networks_can_be_copied_and_loaded(normalized):
    x = torch.rand(4, 1, 12, 12)
    normalized(x)
    copied = copy.deepcopy(normalized)
    loaded = copy.deepcopy(normalized)
    for parameter in loaded.parameters():
        nn.init.normal_(parameter)
    loaded.load_state_dict(normalized.state_dict(), strict=True)
    for network in (normalized, copied, loaded):
        assert torch.equal(network.eval()(x), normalized.eval()(x))
    assert torch.equal(copied.train()(x), normalized.train()(x))
    nn.init.ones_(next(copied.parameters()))
    assert not torch.equal(copied(x), normalized(x))  # a copy has its own weights


def test_spectrally_normalized_logit_depends_on_its_own_image_only(normalized):
    x = torch.rand(4, 1, 12, 12)
    torch.testing.assert_close(normalized.eval()(x)[1:2], normalized(x[1:2]))


def test_gradient_penalty_reaches_all_spectrally_normalized_weights(normalized):
    penalty = squared_gradient(normalized, torch.rand(4, 1, 12, 12))
    assert penalty.shape == (4,) and (penalty > 0).all()
    penalty.mean().backward()
    weights = [
        parameter for name, parameter in normalized.named_parameters() if name.endswith("original")
    ]
    assert all(weight.grad.isfinite().all() and weight.grad.count_nonzero() for weight in weights)


def test_spectral_norm_does_not_change_nonzero_initial_weights():
    torch.manual_seed(2)
    plain = Discriminator.choices["conv"].Config().build((1, 12, 12))
    expected = [layer.weight.clone() for layer in plain.modules() if isinstance(layer, Layer)]
    apply_spectral_norm(plain)
    layers = [layer for layer in plain.modules() if isinstance(layer, Layer)]
    for layer, weight in zip(layers, expected, strict=True):
        assert torch.equal(layer.parametrizations.weight.original, weight)


@pytest.mark.parametrize("base", [Encoder, Decoder])
@pytest.mark.parametrize("normalization", ["none", "group"])
def test_resnets_have_blocks_at_every_image_size(base, normalization):
    arguments = ((1, 28, 28), 6) if base is Encoder else (6, (1, 28, 28))
    for resampling, num_sizes in (("strided", 3), ("bilinear", 2)):  # none at the full size
        config = base.choices["resnet"].Config(
            width=8, num_blocks=2, normalization=normalization, resampling=resampling
        )
        blocks = [m for m in config.build(*arguments).modules() if isinstance(m, ResidualBlock)]
        assert len(blocks) == num_sizes * 2


@pytest.mark.parametrize(
    "values, message",
    [({"num_blocks": 0}, "num_blocks"), ({"normalization": "batch"}, "none, group")],
)
def test_invalid_residual_sizes_raise(values, message):
    with pytest.raises(ValueError, match=message):
        Encoder.choices["resnet"].Config(**values)


@pytest.mark.parametrize("name, settings", DECODERS)
def test_set_output_sets_the_initial_decoder_output(name, settings):
    decoder = Decoder.choices[name].Config(**settings).build(5, (2, 8, 8))
    params = torch.randn(2, 1, 1).expand(2, 8, 8) * 3
    decoder.set_output(params)
    assert (decoder(torch.zeros(1, 5))[0] - params).abs().mean() < 0.5
    assert output_layer(decoder).bias.numel() in (2, 128)


CONV = {"name": "conv", "resampling": "bilinear"}


@pytest.mark.parametrize(
    "padding, resampling, is_natural, model, expected",
    [
        (None, "bilinear", True, None, "replicate"),
        (None, "bilinear", False, None, "zeros"),
        (None, "strided", True, None, "zeros"),
        ("zeros", "bilinear", True, None, "zeros"),
        ("replicate", "bilinear", False, None, "replicate"),
        (None, "bilinear", True, CONV, "zeros"),  # an earlier version
        (None, "bilinear", True, CONV | {"padding": None}, "zeros"),
        (None, "bilinear", False, CONV | {"padding": "replicate"}, "replicate"),
        (None, "strided", False, CONV | {"padding": "replicate"}, "zeros"),
        (None, "bilinear", True, CONV | {"name": "resnet", "padding": "zeros"}, "replicate"),
    ],
)
def test_default_padding(padding, resampling, is_natural, model, expected):
    config = Decoder.choices["conv"].Config(padding=padding, resampling=resampling)
    assert resolve_padding(config, is_natural, model).padding == expected


def test_networks_without_convolutions_have_no_padding():
    config = Decoder.choices["mlp"].Config()
    assert resolve_padding(config, is_natural=True) is config


def test_skip_excitation_scales_channels_by_factors_of_the_latent():
    decoder = Decoder.choices["conv"].Config(skip_excitation=True).build(5, (3, 32, 48))
    layers = [layer for layer in decoder.net if isinstance(layer, SkipExcitation)]
    assert [layer.last.out_features for layer in layers] == [32, 32]  # at half and full size
    hidden, code = torch.randn(7, 32, 16, 24), torch.randn(7, 128 * 4 * 6)
    assert torch.equal(layers[0](hidden, code), silu(hidden))  # at the start
    nn.init.normal_(layers[0].last.weight, std=0.1)
    factors = layers[0](hidden, code) / silu(hidden)
    torch.testing.assert_close(factors, factors[..., :1, :1].expand_as(factors))
    assert factors.min() > 0 and factors.max() < 2
    assert factors[..., 0, 0].std(0).min() > 0 and factors[..., 0, 0].std(1).min() > 0
    decoder(torch.randn(7, 5)).sum().backward()
    assert all(layer.last.weight.grad.abs().sum() > 0 for layer in layers)


def test_strided_decoders_have_no_skip_excitation():
    with pytest.raises(ValueError, match="skip_excitation must be false with resampling=strided"):
        Decoder.choices["conv"].Config(skip_excitation=True, resampling="strided")
