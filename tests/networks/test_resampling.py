"""Layers that change the image size: no checkerboard patterns, no aliasing."""

import pytest
import torch

from vaegan.data.shapes import Shapes
from vaegan.images import to_float
from vaegan.networks import encoders
from vaegan.networks.blocks import average_pool, halved_size, interpolate
from vaegan.networks.decoders import Decoder
from vaegan.networks.discriminators import Discriminator
from vaegan.networks.encoders import Encoder
from vaegan.networks.sizes import resolve_width
from vaegan.networks.trunks import conv_trunk
from vaegan.vae.model import VAE, VAEConfig
from vaegan.vae.objectives import ElboObjective

MAX_PEAK = 1.2


def nyquist_peaks(images):
    """Return the mean power at the three Nyquist bins, relative to bins at a distance of 3.

    A checkerboard with a period of 2 pixels has its power at these bins. A Hann window keeps the
    edges of the images from adding power of their own.
    """
    height, width = images.shape[2:]
    window = torch.outer(
        torch.hann_window(height, periodic=False), torch.hann_window(width, periodic=False)
    )
    mean = (images * window).sum((2, 3), keepdim=True) / window.sum()
    power = torch.fft.fft2((images - mean) * window).abs().square().mean((0, 1))
    half_height, half_width = height // 2, width // 2
    pairs = [
        (power[half_height, 0], power[half_height - 3, 0]),
        (power[0, half_width], power[0, half_width - 3]),
        (power[half_height, half_width], power[half_height - 3, half_width - 3]),
    ]
    return [float(peak / neighbor) for peak, neighbor in pairs]


def fresh_images(name, resampling, seed):
    torch.manual_seed(seed)
    config = Decoder.choices[name].Config(width=32, resampling=resampling)
    with torch.no_grad():
        return config.build(16, (3, 32, 32))(torch.randn(128, 16))


def training_images():
    source = Shapes.Config(channels=3, height=32, width=32).build()
    return to_float(source.split("train").images[:1920])


def trained_images(name, resampling, images):
    """Train a small VAE for 60 steps, and return the means of its samples."""
    torch.manual_seed(0)
    encoder = Encoder.choices[name].Config(width=16, resampling=resampling)
    decoder = Decoder.choices[name].Config(width=16, resampling=resampling)
    vae = VAE((3, 32, 32), VAEConfig(latent_dim=8, encoder=encoder, decoder=decoder))
    vae.initialize(images[:200])
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    objective = ElboObjective.Config().build()
    for batch in images.split(32):
        output = objective(vae, batch, beta=1.0)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    with torch.no_grad():
        return vae.decode(torch.randn(128, 8)).mean


@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_bilinear_decoders_with_fresh_weights_have_no_checkerboard(name):
    for seed in range(3):
        assert max(nyquist_peaks(fresh_images(name, "bilinear", seed))) < MAX_PEAK
        assert max(nyquist_peaks(fresh_images(name, "strided", seed))) > MAX_PEAK


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv", "resnet"])
def test_bilinear_decoders_have_no_checkerboard_after_training(name):
    images = training_images()
    limits = [MAX_PEAK * max(1, peak) for peak in nyquist_peaks(images)]

    def has_checkerboard(resampling):
        peaks = nyquist_peaks(trained_images(name, resampling, images))
        return any(peak > limit for peak, limit in zip(peaks, limits, strict=True))

    assert has_checkerboard("strided")
    assert not has_checkerboard("bilinear")


def test_a_checkerboard_is_detected():
    images = torch.rand(8, 3, 32, 32) * 0.1
    assert max(nyquist_peaks(images)) < 3
    images[:, :, ::2] += 0.1
    assert nyquist_peaks(images)[0] > 100


@pytest.mark.parametrize("size", [(32, 32), (7, 9), (13, 28), (5, 4)])
def test_pooling_and_interpolation_use_every_pixel(size):
    images = torch.ones(1, 1, *size, requires_grad=True)
    pooled = average_pool(size)(images)
    assert pooled.shape[2:] == halved_size((1, *size), 1)
    torch.testing.assert_close(pooled, torch.ones_like(pooled))
    pooled.sum().backward()
    assert (images.grad > 0).all()
    enlarged = interpolate(size)(pooled)
    assert enlarged.shape[2:] == size
    torch.testing.assert_close(enlarged, torch.ones(1, 1, *size))


def test_pooling_removes_the_highest_frequency():
    columns = torch.arange(8) % 2
    images = columns.float().expand(1, 1, 8, 8)
    torch.testing.assert_close(average_pool((8, 8))(images), torch.full((1, 1, 4, 4), 0.5))


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 64, 64), (3, 28, 28)])
def test_networks_are_bilinear_by_default(shape):
    trunk = conv_trunk(shape, encoders.Conv.Config(), "silu")
    assert trunk.architecture["resampling"] == "bilinear"
    vae = VAE(shape)
    assert vae.encoder.trunk.architecture["resampling"] == "bilinear"
    assert not any(isinstance(layer, torch.nn.ConvTranspose2d) for layer in vae.decoder.modules())


def test_discriminator_gradients_have_no_checkerboard():
    """With bilinear resampling, gradients have less power at the Nyquist bins of rows and columns.

    At the diagonal bin both resamplings have the power of their neighbors.
    """
    peaks = {}
    for resampling in ("bilinear", "strided"):
        gradients = []
        for seed in range(32):
            torch.manual_seed(seed)
            config = Discriminator.choices["conv"].Config(resampling=resampling)
            images = torch.rand(8, 3, 32, 32, requires_grad=True)
            config.build((3, 32, 32))(images).sum().backward()
            gradients.append(images.grad / images.grad.std())
        *peaks[resampling], _ = nyquist_peaks(torch.cat(gradients))
    assert max(peaks["bilinear"]) < 0.85 < min(peaks["strided"])


@pytest.mark.parametrize(
    "name, resampling, shape, width",
    [
        ("conv", "bilinear", (1, 28, 28), 32),
        ("conv", "bilinear", (3, 31, 40), 32),
        ("conv", "bilinear", (1, 32, 32), 64),
        ("conv", "bilinear", (3, 64, 64), 64),
        ("conv", "strided", (3, 64, 64), 32),
        ("resnet", "bilinear", (3, 64, 64), 32),
    ],
)
def test_default_width_depends_on_the_image_size(name, resampling, shape, width):
    for base, args in (
        (Encoder, (shape, 4)),
        (Decoder, (4, shape)),
        (Discriminator, (shape,)),
    ):
        config = base.choices[name].Config(resampling=resampling)
        resolved = resolve_width(config, shape)
        assert resolved.width == width and config.width is None
        explicit = base.choices[name].Config(resampling=resampling, width=width)
        assert resolved == explicit == resolve_width(explicit, (1, 28, 28))
        networks = [part.build(*args) for part in (config, explicit)]
        shapes = [[weight.shape for weight in network.parameters()] for network in networks]
        assert shapes[0] == shapes[1]


def test_networks_without_convolutions_have_no_width():
    config = Encoder.choices["mlp"].Config()
    assert resolve_width(config, (3, 32, 32)) is config


def test_an_unknown_resampling_raises():
    with pytest.raises(ValueError, match="resampling must be one of strided, bilinear; got"):
        encoders.Conv.Config(resampling="nearest")
