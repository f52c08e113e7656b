"""Image grids: layout, content and minimum number of images."""

import torch

from tests.conftest import SMALL_NETS, compose
from vaegan.training.image_grids import interleave_rows, make_image_grid, make_image_grids
from vaegan.vae.model import VAE

SHAPE = (1, 8, 12)


def test_grids_have_eight_columns_with_a_border():
    assert make_image_grid(torch.rand(16, *SHAPE)).shape == (3, 2 * 9 + 1, 8 * 13 + 1)
    assert make_image_grid(torch.rand(16, 3, 8, 12)).shape == (3, 19, 105)


def test_grids_show_samples_reconstructions_and_interpolations():
    vae = VAE(
        SHAPE,
        compose("stage=vae", "likelihood=gaussian", "likelihood.dequantize=false", *SMALL_NETS),
    )

    def generate(z):
        return vae.decode(z).mean

    images = torch.rand(16, *SHAPE)
    torch.manual_seed(1)
    grids = make_image_grids(vae, vae.latent_prior(), generate, images)
    torch.manual_seed(1)
    samples = generate(vae.latent_prior().sample((64,)))
    assert torch.equal(grids["samples"], make_image_grid(samples))
    means = vae.encode(images).mean
    reconstructions = generate(means)
    assert torch.equal(
        grids["reconstructions"],
        make_image_grid(
            torch.cat([images[:8], reconstructions[:8], images[8:], reconstructions[8:]])
        ),
    )
    ends = make_image_grid(torch.cat([generate(means[0:1]), generate(means[1:2])]))
    torch.testing.assert_close(grids["interpolation"][:, :9, :13], ends[:, :9, :13])
    torch.testing.assert_close(grids["interpolation"][:, :9, 91:], ends[:, :9, 13:])
    assert all(not value.requires_grad for value in grids.values())


def test_two_images_are_enough():
    vae = VAE(SHAPE, compose("stage=vae", *SMALL_NETS))
    grids = make_image_grids(
        vae, vae.latent_prior(), lambda z: vae.decode(z).mean, torch.rand(2, *SHAPE)
    )
    assert grids["interpolation"].shape == (3, 10, 105)


def test_partners_are_below_their_images_in_an_incomplete_row():
    images, partners = torch.rand(10, *SHAPE), torch.rand(10, *SHAPE)
    rows = interleave_rows(images, partners).split(8)
    expected = (images[:8], partners[:8], images[8:], partners[8:])
    assert [len(row) for row in rows] == [8, 8, 8, 8]
    assert all(
        torch.equal(row[: len(part)], part) for row, part in zip(rows, expected, strict=True)
    )
