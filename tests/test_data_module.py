import pytest
import torch

from vaegan.data.batches import LoaderConfig
from vaegan.data.datasets import Shapes
from vaegan.data.module import ImageDataModule

SOURCE = Shapes.Config(num_train=40, num_val=12, num_test=10).build()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_are_floats_in_range(num_workers):
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=16, eval_batch_size=5, num_workers=num_workers), seed=0)
    batches = list(data.train_dataloader())
    assert [len(images) for images, _ in batches] == [16, 16] and data.num_train_batches == 2
    images, labels = data.on_after_batch_transfer(batches[0], 0)
    assert images.shape == (16, 1, 28, 28) and images.dtype == torch.float32 and labels.shape == (16,)
    assert 0 <= images.min() and images.max() <= 1
    assert [len(images) for images, _ in data.val_dataloader()] == [5, 5, 2]
    assert [len(images) for images, _ in data.test_dataloader()] == [5, 5]


def test_test_images_are_not_trained_on():
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    train, test = data.splits["train"].images, data.splits["test"].images
    assert not {bytes(x) for x in train.flatten(1).numpy()} & {bytes(x) for x in test.flatten(1).numpy()}


def test_example_images_are_the_first_of_val():
    data = ImageDataModule(SOURCE, LoaderConfig(batch_size=8), seed=0)
    assert torch.equal(data.example_images(99) * 255, SOURCE.split("val").images.float())


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match=r"loader\.batch_size must be at most the 40 training images; got 41"):
        ImageDataModule(SOURCE, LoaderConfig(batch_size=41), seed=0)
