import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.gan.generator import Generator
from vaegan.training.image_grids import grid, picture_grids
from vaegan.vae.model import VAE

SHAPE = (1, 8, 12)


def test_grids_have_eight_columns_with_a_border():
    assert grid(torch.rand(16, *SHAPE)).shape == (3, 2 * 9 + 1, 8 * 13 + 1)
    assert grid(torch.rand(16, 3, 8, 12)).shape == (3, 19, 105)


def test_the_three_pictures_of_a_vae():
    vae = VAE(
        SHAPE,
        compose("stage=vae", "likelihood=gaussian", "likelihood.dequantize=false", *SMALL_NETS),
    )
    generator = Generator(vae.decoder, vae.likelihood)
    images = torch.rand(16, *SHAPE)
    torch.manual_seed(1)
    grids = picture_grids(vae, vae.latent_prior(), generator, images)
    torch.manual_seed(1)
    samples = generator(vae.latent_prior().sample((64,)))
    assert torch.equal(grids["samples"], grid(samples))
    means = vae.encode(images).mean
    rebuilt = generator(means)
    assert torch.equal(
        grids["reconstructions"],
        grid(torch.cat([images[:8], rebuilt[:8], images[8:], rebuilt[8:]])),
    )
    ends = grid(torch.cat([generator(means[0:1]), generator(means[1:2])]))
    torch.testing.assert_close(grids["interpolation"][:, :9, :13], ends[:, :9, :13])
    torch.testing.assert_close(grids["interpolation"][:, :9, 91:], ends[:, :9, 13:])
    assert all(not value.requires_grad for value in grids.values())


def test_few_images_are_enough():
    vae = VAE(SHAPE, compose("stage=vae", *SMALL_NETS))
    grids = picture_grids(
        vae, vae.latent_prior(), Generator(vae.decoder, vae.likelihood), torch.rand(2, *SHAPE)
    )
    assert grids["interpolation"].shape == (3, 10, 105)
