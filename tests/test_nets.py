"""Over the registries of encoders, decoders and discriminators."""

import pytest
import torch
from torch import nn

from vaegan.nets.blocks import ConvSizes, MlpSizes, conv_widths, he_init, up
from vaegan.nets.decoders import Decoder
from vaegan.nets.discriminators import Discriminator
from vaegan.nets.encoders import Encoder

SHAPES = [(1, 28, 28), (3, 32, 64), (2, 12, 20), (4, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(Encoder.choices))
def test_encoders_turn_images_into_features(name, shape):
    encoder = Encoder.choices[name].Config().build(shape, num_features=6)
    assert encoder(torch.rand(3, *shape)).shape == (3, 6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(Decoder.choices))
def test_decoders_turn_latents_into_parameters(name, shape):
    decoder = Decoder.choices[name].Config().build(latent_dim=5, param_shape=shape)
    assert decoder(torch.randn(3, 5)).shape == (3, *shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(Discriminator.choices))
def test_discriminators_judge_each_image_by_itself(name, shape):
    discriminator = Discriminator.choices[name].Config().build(shape)
    images = torch.rand(4, *shape)
    logits = discriminator(images)
    assert logits.shape == (4,)
    torch.testing.assert_close(discriminator(images[1:2]), logits[1:2])


@pytest.mark.parametrize("base", [Encoder, Decoder, Discriminator])
def test_no_network_normalises_over_the_batch(base):
    shapes = {Encoder: ((1, 28, 28), 4), Decoder: (4, (1, 28, 28)), Discriminator: ((1, 28, 28),)}
    for choice in base.choices.values():
        layers = choice.Config().build(*shapes[base]).modules()
        assert not [layer for layer in layers if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    "shape, num_halvings", [((1, 28, 28), 2), ((1, 4, 4), 2), ((1, 32, 32), 3), ((3, 64, 128), 4), ((1, 12, 64), 2)]
)
def test_images_are_halved_to_between_4_and_7_pixels_where_they_can(shape, num_halvings):
    sizes = Encoder.choices["conv"].Config(width=8, max_width=20)
    assert conv_widths(shape, sizes) == [min(8 << i, 20) for i in range(num_halvings)]


@pytest.mark.parametrize("base", [Encoder, Decoder, Discriminator])
def test_images_that_cannot_be_halved_twice_are_refused(base):
    arguments = {Encoder: ((1, 30, 28), 4), Decoder: (4, (1, 30, 28)), Discriminator: ((1, 30, 28),)}[base]
    with pytest.raises(ValueError, match=rf"{base.group}=conv .*multiples of 4, got 30 x 28"):
        base.choices["conv"].Config().build(*arguments)


def test_he_initialisation_keeps_the_scale_of_the_signal():
    torch.manual_seed(0)
    layers = [nn.Linear(512, 512), up(64, 64)]
    inputs = [torch.randn(256, 512), torch.randn(16, 64, 16, 16)]
    for layer, x in zip(layers, inputs, strict=True):
        he_init(layer, nn.Linear(1, 1))
        inside = layer(x.relu()) if isinstance(layer, nn.Linear) else layer(x.relu())[..., 1:-1, 1:-1]
        assert inside.square().mean().item() == pytest.approx(1, rel=0.1)  # as much as went in, before the relu
        assert (layer.bias == 0).all()


def test_output_layers_start_small():
    for base, arguments in ((Encoder, ((1, 28, 28), 4)), (Decoder, (4, (1, 28, 28))), (Discriminator, ((1, 28, 28),))):
        for choice in base.choices.values():
            network = choice.Config().build(*arguments)
            x = torch.randn(64, 4) if base is Decoder else torch.rand(64, 1, 28, 28)
            assert network(x).std() < 0.5


@pytest.mark.parametrize("key", ["width", "max_width", "hidden_dim"])
def test_bad_sizes_are_refused(key):
    assert issubclass(Encoder.choices["conv"].Config, ConvSizes)
    with pytest.raises(ValueError, match=f"{key} must be at least 1; got 0"):
        Encoder.choices["conv"].Config(**{key: 0})


def test_bad_hidden_dims_are_refused():
    assert issubclass(Encoder.choices["mlp"].Config, MlpSizes)
    with pytest.raises(ValueError, match="hidden_dims must be a list of numbers of at least 1"):
        Encoder.choices["mlp"].Config(hidden_dims=[64, 0])
