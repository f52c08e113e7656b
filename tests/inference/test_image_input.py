"""Images of the usual types and layouts."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.untrained import component, make_run, save_vae
from vaegan.checkpoints.checkpoint import load_checkpoint
from vaegan.config import to_plain
from vaegan.data.images.decoding import ImageDecoder
from vaegan.inference.image_input import as_images, training_decoder

GRAY, COLOR = (1, 6, 8), (3, 6, 8)


def convert(images, shape):
    decoder = ImageDecoder(*shape, keeps_ratio=True, background=(255, 255, 255), max_pixels=10_000)
    return as_images(images, shape, decoder)


@pytest.fixture
def levels():
    return torch.randint(256, (2, 3, 6, 8), dtype=torch.uint8)


def test_all_layouts_and_types_give_the_same_images(levels):
    expected = levels.float() / 255
    channels_last = levels.permute(0, 2, 3, 1)
    pillow = [Image.fromarray(image.numpy()) for image in channels_last]
    given = [levels, levels.numpy(), levels.float() / 255, (levels.double() / 255).numpy()]
    given += [channels_last, channels_last.numpy(), pillow, list(levels), list(channels_last)]
    for images in given:
        converted = convert(images, COLOR)
        assert converted.dtype == torch.float32 and converted.is_contiguous()
        torch.testing.assert_close(converted, expected)
    for single in (levels[0], channels_last[0].numpy(), pillow[0]):
        torch.testing.assert_close(convert(single, COLOR), expected[:1])


def test_gray_images_need_no_channel(levels):
    gray = levels[:, 0]
    expected = gray.unsqueeze(1).float() / 255
    for images in (gray, gray.unsqueeze(1), gray.unsqueeze(-1).numpy()):
        torch.testing.assert_close(convert(images, GRAY), expected)
    torch.testing.assert_close(convert(gray[0], GRAY), expected[:1])
    mask = gray > 100
    assert torch.equal(convert(mask, GRAY), mask.unsqueeze(1).float())


def test_pil_images_are_cropped_and_resized_as_in_training():
    image = Image.new("RGB", (60, 20), "white")
    image.paste((0, 0, 0), (20, 0, 40, 20))  # the center is black
    for shape in (COLOR, GRAY):
        images = convert(image, shape)
        assert images.shape == (1, *shape)
        assert images[0, 0, :, 2:6].max() < 0.1 and images[0, 0, :, 0].min() > 0.5


@pytest.mark.parametrize("name", ["image_folder", "celeba"])
def test_image_files_are_decoded_as_in_training(tmp_path, name):
    run = make_run(COLOR, network="mlp")
    dataset = component("dataset", name, root=str(tmp_path), image_size=[6, 8], crop="none")
    path = save_vae(tmp_path / "best.ckpt", run)
    checkpoint = load_checkpoint(path)
    checkpoint.vae["dataset"] = to_plain(dataset)
    assert training_decoder(checkpoint) == dataset.build().decoder


def test_gradients_are_not_kept():
    images = torch.rand(1, 3, 6, 8, requires_grad=True)
    assert not convert(images, COLOR).requires_grad


@pytest.mark.parametrize(
    "images, message",
    [
        (
            torch.rand(2, 3, 6, 8) * 255,
            r"must be in \[0, 1\]; got values from .* pass them as uint8",
        ),
        (torch.rand(2, 3, 6, 8) * 2 - 1, r"must be in \[0, 1\]; got values from -"),
        (torch.full((1, 3, 6, 8), torch.nan), r"must be in \[0, 1\]; got values from nan"),
        (torch.zeros(1, 3, 6, 8).long(), r"uint8 in 0 to 255; got torch.int64"),
        (torch.rand(2, 3, 5, 8), r"shape \(B, 3, 6, 8\) or .* got \(2, 3, 5, 8\)\. Resize them"),
        (torch.rand(2, 1, 6, 8), r"got \(2, 1, 6, 8\)"),
        (np.zeros(3, np.float32), r"got \(3,\)"),
        (torch.tensor(0.5), r"got \(\)"),
        ([], "images is empty"),
        (torch.rand(0, 3, 6, 8), "images is empty"),
        (np.zeros((0, 6, 8, 3), np.uint8), "images is empty"),
        ("cat.png", "images must be a tensor or array .* got str"),
        (None, "got NoneType"),
    ],
)
def test_other_images_are_rejected(images, message):
    with pytest.raises(ValueError, match=message):
        convert(images, COLOR)
