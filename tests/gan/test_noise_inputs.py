"""Noise inputs of the generator: exact at the start, and a function of the latent."""

import math

import pytest
import torch

from tests.untrained import build, build_noisy, make_run, save_gan
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.gan.generator import Generator
from vaegan.gan.noise_inputs import NoiseInput, NoisyDecoder
from vaegan.gan.training_config import GANTraining, resolve_data_defaults
from vaegan.gan.warm_start import WarmStartConfig, init_generator

SHAPE = (3, 30, 44)


@pytest.mark.parametrize("network", ["conv", "resnet", "mlp"])
def test_noise_inputs_do_not_change_the_start(network):
    vae = build(make_run(SHAPE, network))
    generator, transfer = init_generator(vae, lambda: vae, WarmStartConfig(), noise_inputs=True)
    z = torch.randn(5, 4)
    assert torch.equal(generator(z), Generator(vae.decoder, vae.likelihood)(z))
    assert isinstance(generator.decoder, NoisyDecoder) and transfer.fresh == []
    assert bool(generator.decoder.noise) == (network != "mlp")  # its layers have no positions


@pytest.mark.parametrize("network, num_layers", [("conv", 3), ("resnet", 3)])
def test_noise_reaches_all_layers_with_positions(network, num_layers):
    decoder = NoisyDecoder(build(make_run(SHAPE, network)).decoder, 4)
    sizes = [layer.size for layer in decoder.noise.values()]
    assert sizes[-1] == (30, 44) and len(sizes) == num_layers
    assert all(a[0] <= b[0] for a, b in zip(sizes, sizes[1:], strict=False))
    decoder(torch.randn(5, 4)).square().sum().backward()
    for layer in decoder.noise.values():
        assert layer.weight.grad.abs().min() > 0


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
    generator = build_noisy(make_run(SHAPE))
    z = torch.randn(5, 4) * 10  # the angles need more digits than bfloat16 has
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(z)
    assert images.dtype == torch.float32
    assert (images - generator(z)).abs().mean() < 0.02


def test_checkpoints_restore_noise_inputs(tmp_path):
    run = make_run(SHAPE)
    z = torch.randn(5, 4)
    restored = load_checkpoint(save_gan(tmp_path / "gan.ckpt", run, has_noise=True))
    assert torch.equal(restored.build_generator()(z), build_noisy(run)(z))
    assert not any("frequency" in name for name in restored.state)
    earlier = load_checkpoint(save_gan(tmp_path / "earlier.ckpt", run)).build_generator()
    assert not isinstance(earlier.decoder, NoisyDecoder)


@pytest.mark.parametrize(
    "given, is_natural, expected",
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_default_of_noise_inputs(given, is_natural, expected):
    training = GANTraining(noise_inputs=given)
    resolved = resolve_data_defaults(training, (3, 32, 32), 10_000, is_natural)
    assert resolved.noise_inputs == expected
