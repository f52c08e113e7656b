"""Noise inputs of the generator: exact at the start, and a function of the latent."""

import math

import pytest
import torch
from torch import nn

from tests.untrained import build, build_noisy, make_run, save_gan
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.data.datamodule import ImageDataModule
from vaegan.data.shapes import Shapes
from vaegan.gan import noise_inputs
from vaegan.gan.noise_inputs import NoiseInput, NoisyDecoder, has_textures, takes_noise
from vaegan.gan.training_config import GANTraining
from vaegan.networks.decoders import Decoder
from vaegan.stages.gan import resolve_training

SHAPE = (3, 30, 44)


@pytest.mark.parametrize("network", ["conv", "resnet", "mlp"])
def test_noise_inputs_do_not_change_the_start(network):
    vae = build(make_run(SHAPE, network))
    noisy = NoisyDecoder(vae.decoder, 4)
    z = torch.randn(5, 4)
    assert torch.equal(noisy(z), vae.decoder(z))
    assert bool(noisy.noise) == (network != "mlp")  # its layers have no feature maps


@pytest.mark.parametrize("network, num_layers", [("conv", 3), ("resnet", 3)])
def test_noise_reaches_all_layers_with_positions(network, num_layers):
    decoder = NoisyDecoder(build(make_run(SHAPE, network)).decoder, 4)
    sizes = [layer.size for layer in decoder.noise.values()]
    assert sizes[-1] == (30, 44) and len(sizes) == num_layers
    assert all(a[0] <= b[0] for a, b in zip(sizes, sizes[1:], strict=False))
    decoder(torch.randn(5, 4)).square().sum().backward()
    for layer in decoder.noise.values():
        assert layer.weight.grad.abs().min() > 0


def test_noise_is_added_before_activations_with_skip_excitation():
    config = Decoder.choices["conv"].Config(skip_excitation=True)
    noisy = NoisyDecoder(config.build(4, (3, 32, 32)), 4)
    assert list(noisy.noise) == ["7", "10", "13", "15"]


def test_a_latent_always_has_the_same_noise():
    layer = NoiseInput(4, 2, (20, 30), seed=1)
    with torch.no_grad():
        layer.weight[0] = 1.0
    z, hidden = torch.randn(500, 4), torch.zeros(500, 2, 20, 30)
    noise = layer(hidden, z)
    assert torch.equal(noise, layer(hidden, z)) and not noise[:, 1].any()
    torch.testing.assert_close(noise[:7], layer(hidden[:7], z[:7]))
    values = noise[:, 0].flatten(1).detach()
    assert values.mean().abs() < 0.01 and math.isclose(values.var().item(), 1, rel_tol=0.02)
    # Positions of an image, and images, are uncorrelated.
    for rows in (values.T[:100], values[:100]):
        correlation = torch.corrcoef(rows) - torch.eye(len(rows))
        assert correlation.square().mean().sqrt() < 0.06
    assert not torch.equal(layer.frequency, NoiseInput(4, 2, (20, 30), seed=2).frequency)


def test_the_noise_is_the_same_in_all_versions():
    layer = NoiseInput(2, 1, (1, 2), seed=0)
    expected = torch.tensor([[1.764052, 0.400157], [0.978738, 2.240893]])
    torch.testing.assert_close(layer.frequency * math.sqrt(2) / 8, expected)
    torch.testing.assert_close(layer.phase, torch.tensor([2.661902, 4.058272]))


def test_noise_is_computed_in_float32_under_autocast():
    layer = NoiseInput(4, 2, (20, 30), seed=1)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    z, hidden = torch.randn(50, 4), torch.zeros(50, 2, 20, 30)
    with torch.autocast("cpu", torch.bfloat16):
        noise = layer(hidden.bfloat16(), z)
    assert noise.dtype == torch.bfloat16
    assert (noise - layer(hidden, z)).abs().max() < 0.01  # bfloat16 angles give errors up to 0.1


class SharedActivation(Decoder):
    """Decoder whose layers share one activation."""

    def __init__(self):
        act = nn.SiLU()
        layers = [nn.Linear(4, 18), nn.BatchNorm1d(18), nn.Unflatten(1, (2, 3, 3)), act]
        super().__init__([*layers, nn.Conv2d(2, 2, 1), act, nn.Conv2d(2, 1, 1)])


class OtherForward(SharedActivation):
    """Decoder that does not only apply its layers."""

    def forward(self, z):
        return 2 * super().forward(z)


def test_decoders_of_plugins():
    decoder, z = SharedActivation(), torch.randn(5, 4)
    noisy = NoisyDecoder(decoder, 4)
    assert torch.equal(noisy(z), decoder(z)) and len(noisy.noise) == 2
    assert takes_noise(decoder) and not takes_noise(OtherForward())
    with pytest.raises(ValueError, match="noise_inputs must be false .* overrides Decoder.forward"):
        NoisyDecoder(OtherForward(), 4)


def test_large_noise_is_refused_before_it_is_allocated(monkeypatch):
    decoder = build(make_run(SHAPE)).decoder
    monkeypatch.setattr(noise_inputs, "NoiseInput", None)
    monkeypatch.setattr(noise_inputs, "MAX_VALUES", 4 * (2 * 30 * 44 + 15 * 22) - 1)
    with pytest.raises(ValueError, match="noise_inputs must be false for such large images"):
        NoisyDecoder(decoder, 4)


def test_checkpoints_restore_noise_inputs(tmp_path):
    run = make_run(SHAPE)
    z = torch.randn(5, 4)
    restored = load_checkpoint(save_gan(tmp_path / "gan.ckpt", run, has_noise=True))
    assert torch.equal(restored.build_generator()(z), build_noisy(run)(z))
    assert not any("frequency" in name for name in restored.state)
    earlier = load_checkpoint(save_gan(tmp_path / "earlier.ckpt", run)).build_generator()
    assert not isinstance(earlier.decoder, NoisyDecoder)


def test_drawings_have_no_textures():
    photos = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)
    drawings = photos.clone()
    drawings[..., :5] = 255  # 4 of 15 pairs of neighbors are equal
    assert has_textures(photos) and not has_textures(drawings)


@pytest.mark.parametrize(
    "given, is_natural, is_plain, expected",
    [
        (None, True, True, True),
        (None, False, True, False),
        (None, True, False, False),
        (False, True, True, False),
        (True, False, True, True),
    ],
)
def test_default_of_noise_inputs(given, is_natural, is_plain, expected, monkeypatch):
    monkeypatch.setattr(Shapes, "IS_NATURAL", is_natural)
    training = GANTraining(noise_inputs=given)
    data = ImageDataModule(Shapes.Config().build(), training.loader, seed=0)
    monkeypatch.setattr("vaegan.stages.gan.has_textures", lambda images: len(images) == 200)
    vae = build(make_run())
    if not is_plain:
        monkeypatch.setattr(type(vae.decoder), "forward", OtherForward.forward, raising=False)
    assert resolve_training(training, data, vae).noise_inputs == expected
