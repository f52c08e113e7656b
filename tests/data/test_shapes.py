import pytest
import torch

from vaegan.data.shapes import Shapes

SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 40)])
def test_images_are_a_function_of_the_seed(shape):
    channels, height, width = shape
    sizes = {"num_train": 60, "num_val": 20, "num_test": 10}
    source = Shapes.Config(channels=channels, height=height, width=width, **sizes).build()
    source.prepare()
    for name, num in zip(SPLITS, sizes.values(), strict=True):
        split = source.split(name)
        assert split.images.shape == (num, *shape) and split.labels.shape == (num,)
        assert torch.equal(split.images, source.split(name).images)
        assert (split.images.flatten(1).amax(1) > 0).all(), "an image without a shape"
    assert not torch.equal(source.split("val").images[:10], source.split("test").images)


@pytest.mark.parametrize(
    "key, minimum", [("channels", 1), ("height", 1), ("num_train", 1), ("num_val", 2)]
)
def test_invalid_settings_raise(key, minimum):
    with pytest.raises(ValueError, match=f"{key} must be at least {minimum}; got {minimum - 1}"):
        Shapes.Config(**{key: minimum - 1})
