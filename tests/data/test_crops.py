import pytest
import torch

from vaegan.data.batches import BatchIndices
from vaegan.data.crops import CenteredImages, ImageDataset, random_crops
from vaegan.data.dataset import Split

IMAGES = torch.randint(256, (6, 3, 10, 13), dtype=torch.uint8)
LABELS = torch.arange(6)


def test_images_of_the_target_size_are_unchanged():
    data = ImageDataset(Split(IMAGES, LABELS), [10, 13])
    assert len(data) == 6 and not data.is_augmented and data.images is IMAGES
    images, labels = data[BatchIndices(torch.tensor([5, 2]))]
    assert torch.equal(images, IMAGES[[5, 2]]) and labels.tolist() == [5, 2]


def test_evaluation_uses_center_crops_of_larger_images():
    data = ImageDataset(Split(IMAGES, LABELS), [8, 9])
    center = IMAGES[:, :, 1:9, 2:11]
    assert data.is_augmented and torch.equal(data.images[:], center) and len(data.images) == 6
    assert torch.equal(data[BatchIndices(torch.tensor([3]))][0], center[3:4])
    assert torch.equal(CenteredImages(IMAGES, [8, 9])[torch.tensor([1, 0])], center[[1, 0]])


def test_random_crops_are_uniform_over_positions_and_mirroring():
    """Check the extremes of crop_randoms, and the frequencies of many random crops."""
    low, high = torch.tensor([[0.0, 0.0, 0.9]]), torch.tensor([[0.999, 0.999, 0.1]])
    assert torch.equal(random_crops(IMAGES[:1], low, [8, 9], True), IMAGES[:1, :, :8, :9])
    assert torch.equal(random_crops(IMAGES[:1], high, [8, 9], True), IMAGES[:1, :, 2:, 4:].flip(-1))
    assert torch.equal(random_crops(IMAGES[:1], high, [8, 9], False), IMAGES[:1, :, 2:, 4:])
    positions = torch.arange(10 * 13, dtype=torch.int16).view(1, 1, 10, 13).expand(3000, -1, -1, -1)
    crops = random_crops(positions, torch.rand(3000, 3), [8, 9], True)
    corners, counts = crops[:, 0, 0, :2].flatten(1).unique(dim=0, return_counts=True)
    assert len(corners) == 3 * 5 * 2 and counts.min() > 60 and counts.max() < 150


def test_each_image_of_a_batch_has_its_own_crop():
    data = ImageDataset(Split(IMAGES, LABELS, is_mirrored=True), [10, 13])
    crop_randoms = torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.9]])
    images, labels = data[BatchIndices(torch.tensor([4, 0]), crop_randoms)]
    assert torch.equal(
        images, torch.stack([IMAGES[4].flip(-1), IMAGES[0]])
    ) and labels.tolist() == [4, 0]


@pytest.mark.parametrize("size", [[10, 13], [8, 9]])
def test_copy_to_a_device_keeps_images_and_crops(size):
    data = ImageDataset(Split(IMAGES, LABELS, is_mirrored=True), size)
    moved = data.to(torch.device("cpu"))
    batch = BatchIndices(torch.tensor([2, 3, 1]), torch.rand(3, 3))
    assert all(torch.equal(a, b) for a, b in zip(moved[batch], data[batch], strict=True))
    assert data.num_bytes == IMAGES.numel()
